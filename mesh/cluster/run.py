"""The files in the data folder by which any command finds the run of a mesh.

``run.json`` names the run's processes and its Ray, ``plan.json`` has the plan, and ``status.json`` (see ``status``) has
the latest states of the nodes. Knows files only. What always holds: a file is replaced whole, never written in place,
and only its owner can read it, because the plan has passwords; a file of another user is not read, because commands act
on what it says: ``mesh down`` ends the processes that it names.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from mesh.cluster.plan import LOCAL, ClusterPlan
from mesh.cluster.processes import alive
from mesh.private import NotPrivate, make_private, read_own

STARTING: Final = "starting"
RUNNING: Final = "running"
STOPPING: Final = "stopping"
STOPPED: Final = "stopped"
FAILED: Final = "failed"

SUPERVISOR: Final = "mesh.cluster.supervisor"

# Entries of a data folder. One of them is there once a mesh has started in it.
_OWN: Final = frozenset({"secret", "run.json", "plan.json", "etcd", "logs", "nodes", "ray"})


@dataclass(frozen=True, slots=True)
class Run:
    """One run. ``supervisor`` leads the session of all its processes and started at ``since``; both are 0 if ``ray`` is
    not local.

    ``state`` is one of the words above; ``error`` is one sentence. ``address`` and ``namespace`` are Ray's.
    """

    mesh: str
    topology: str
    data: str
    ray: str
    address: str
    namespace: str
    endpoints: tuple[str, ...]
    supervisor: int
    since: float
    state: str
    error: str = ""

    @property
    def local(self) -> bool:
        return self.ray == LOCAL

    def is_alive(self) -> bool:
        """Whether the mesh runs, as far as its files and this machine's processes show."""
        if self.local:
            return alive(self.supervisor, self.since)
        return self.state in (STARTING, RUNNING)


def claim_folder(data: Path) -> None:
    """Create the data folder, or take the access of other users away from one that exists.

    Raises ``NotPrivate`` if other users have used it, and if other programs use it: their users need its mode.
    """
    with contextlib.suppress(FileNotFoundError):
        found = os.listdir(data)
        if found and _OWN.isdisjoint(found) and data.stat().st_mode & 0o077:
            raise NotPrivate(
                f"{data} has files of other programs, and other users may enter it; choose a folder for the mesh "
                f"alone, or run: chmod 700 {data}"
            )
    make_private(data)


def run_path(data: Path) -> Path:
    return data / "run.json"


def plan_path(data: Path) -> Path:
    return data / "plan.json"


def status_path(data: Path) -> Path:
    return data / "status.json"


def logs_path(data: Path) -> Path:
    return data / "logs"


def replace(path: Path, text: str) -> None:
    """Replace a file by ``text``: a reader sees the old or the new content. Creates the folder. Mode 0600."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)  # on a full disk a part of it would take the last room
        raise


def save_run(run: Run) -> None:
    replace(run_path(Path(run.data)), json.dumps(asdict(run), indent=2) + "\n")


def load_run(data: Path) -> Run | None:
    """The last run in this data folder, living or ended. Raises ``NotPrivate``, ``ValueError``."""
    try:
        value = json.loads(read_own(run_path(data)))
        return Run(**{**value, "endpoints": tuple(value["endpoints"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{run_path(data)} is damaged ({error}): remove it if no mesh runs there") from error


def save_plan(plan: ClusterPlan) -> None:
    replace(plan_path(Path(plan.data)), plan.to_json())


def load_plan(data: Path) -> ClusterPlan:
    """The plan of the last run in this data folder. Raises ``NotPrivate``, ``FileNotFoundError``, ``ValueError``."""
    return ClusterPlan.from_json(read_own(plan_path(data), secret=True))


def running() -> list[Run]:
    """The local meshes that run on this machine, and the meshes on Ray clusters that have their data folder in a
    ``.mesh`` folder of the current folder or of one of its parents."""
    folders = {folder.resolve() for folder in _supervised()}
    folders |= {path.parent.resolve() for path in _nearby()}
    runs = []
    for folder in sorted(folders):
        try:
            run = load_run(folder)
        except (OSError, ValueError):
            continue  # another user's, or damaged: `mesh status --topology FILE` shows the error
        if run is not None and run.is_alive():
            runs.append(run)
    return runs


def _supervised() -> Iterator[Path]:
    """The data folders on the command lines of supervisors."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if SUPERVISOR in words:
            place = words.index(SUPERVISOR) + 1
            if place < len(words):
                yield Path(words[place])


def _nearby() -> Iterator[Path]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        yield from (folder / ".mesh").glob("run.json")
        yield from (folder / ".mesh").glob("*/run.json")


def ray_namespace(mesh: str) -> str:
    """The namespace of a mesh in Ray: meshes that share one cluster do not see each other's actors."""
    return "mesh-" + re.sub(r"[^A-Za-z0-9_.-]", "_", mesh)
