"""One run of a mesh, and the files in the data folder that tell of it.

``run.json`` names the run's processes and its Ray, ``plan.json`` has the plan, and ``status.json`` (see ``status``) has
the latest states of the nodes. Knows files and processes of this machine. ``run.json`` may
be missing or out of date (see ``find``). What always holds: a file is replaced whole, never written in place, and only
its owner can read it, because the plan has passwords; a file of another user is not read, because commands act on what
it says: ``mesh down`` ends the processes that it names.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import psutil

from mesh.cluster.plan import LOCAL, ClusterPlan
from mesh.cluster.processes import alive, started
from mesh.private import NotPrivate, make_private, read_own
from mesh.topology.topology import Topology, from_dict

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
    """One run. ``supervisor`` leads the session of all its processes and started at ``since``; it is 0 if ``ray`` is
    not local. ``host`` is the name of the machine on which ``mesh up`` ran.

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
    host: str = ""

    @property
    def here(self) -> bool:
        """Whether its processes are on this machine, or reached through Ray from it."""
        return not self.local or self.host in ("", socket.gethostname())

    @property
    def local(self) -> bool:
        return self.ray == LOCAL

    def is_alive(self) -> bool:
        """Whether the mesh runs, as far as its files and this machine's processes show."""
        if self.local and self.here:
            return alive(self.supervisor, self.since)
        return self.state in (STARTING, RUNNING)


def claim_folder(data: Path) -> None:
    """Create the data folder, or take the access of other users away from one that exists.

    Raises ``NotPrivate`` if other users have used it, and if other programs use it: their users need its mode.
    """
    if why := foreign(data):
        raise NotPrivate(why)
    make_private(data)


def foreign(data: Path) -> str:
    """Why no mesh can have this data folder: other programs and other users use it; one sentence, empty if it can.
    Changes nothing. Raises ``OSError``."""
    with contextlib.suppress(FileNotFoundError):
        found = os.listdir(data)
        if found and _OWN.isdisjoint(found) and data.stat().st_mode & 0o077:
            return (
                f"{data} has files of other programs, and other users may enter it; choose a folder for the mesh "
                f"alone, or run: chmod 700 {data}"
            )
    return ""


def taken(data: Path, mesh: str) -> str:
    """Why a mesh of this name cannot have this data folder, which may not exist: another mesh has it; one sentence,
    empty if it can. Changes nothing. Raises ``OSError``."""
    names = [run.mesh] if (run := load_run(data)) is not None else []
    with contextlib.suppress(FileNotFoundError, ValueError):
        names.append(load_plan(data).mesh)
    other = next((name for name in names if name != mesh), None)
    return "" if other is None else f"{data} has the files of the mesh {other!r}; name another folder for {mesh!r}"


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
    replace(run_path(Path(run.data)), json.dumps(as_plain(run), indent=2) + "\n")


def load_run(data: Path) -> Run | None:
    """The last run of which this data folder tells, living or ended. ``None`` if there is none, or its file is damaged:
    it is only a copy. Raises ``NotPrivate``."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return run_of(json.loads(read_own(run_path(data))))
    return None


def run_of(value: Mapping[str, Any]) -> Run:
    """The run of which ``as_plain`` gave this value; unknown keys are ignored. Raises ``ValueError``."""
    try:
        known = {item.name: value[item.name] for item in fields(Run) if item.name in value}
        return Run(**{**known, "endpoints": tuple(value["endpoints"])})
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"this is no run of a mesh: {error!r}") from error


def as_plain(run: Run) -> dict[str, Any]:
    """The run as JSON's values."""
    return {**asdict(run), "endpoints": list(run.endpoints)}


def save_plan(plan: ClusterPlan) -> None:
    replace(plan_path(Path(plan.data)), plan.to_json())


def load_plan(data: Path) -> ClusterPlan:
    """The plan of the last run in this data folder. Raises ``NotPrivate``, ``FileNotFoundError``, ``ValueError``."""
    return ClusterPlan.from_json(read_own(plan_path(data), secret=True))


def topology_of(run: Run) -> Topology:
    """The topology that a run follows, by its data folder. Raises ``OSError``, ``ValueError``."""
    try:
        return from_dict(dict(load_plan(Path(run.data)).settings))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{plan_path(Path(run.data))} has no topology: {error!r}") from error


def running() -> list[Run]:
    """The local meshes that run on this machine, and the meshes on Ray clusters that have their data folder in a
    ``.mesh`` folder of the current folder or of one of its parents."""
    folders = {folder.resolve() for folder in supervised()}
    folders |= {path.parent.resolve() for path in _nearby()}
    runs = []
    for folder in sorted(folders):
        try:
            run = load_run(folder)
        except (OSError, ValueError):
            continue  # another user's: `mesh status FILE` shows the error
        run = run if run is not None and run.is_alive() else supervised_run(folder)
        if run is not None and run.is_alive():
            runs.append(run)
    return runs


def moved(file: str, topology: Topology) -> Run | None:
    """The mesh that was started from this file and runs on this machine, if the file names another data folder now."""
    there = (run for run in started_from(file) if run.local)
    return next((run for run in there if Path(run.data).resolve() != topology.data.resolve()), None)


def started_from(file: str) -> Iterator[Run]:
    """The meshes among ``running`` that were started from this file."""
    place = str(Path(file).resolve())
    return (run for run in running() if run.topology == place)


def supervised() -> Iterator[Path]:
    """The data folders on the command lines of supervisors."""
    yield from (Path(words[words.index(SUPERVISOR) + 1]) for _, words in _supervisors())


def supervised_run(data: Path) -> Run | None:
    """The run of the supervisor that works on this data folder, by its command line: for a folder whose ``run.json``
    was lost. Raises ``NotPrivate``, ``ValueError``."""
    for process, words in _supervisors():
        place = words.index(SUPERVISOR) + 1
        since = started(process.pid)
        if Path(words[place]).resolve() != data.resolve() or since is None:
            continue
        with contextlib.suppress(FileNotFoundError):
            plan = load_plan(data)
            topology = words[place + 2] if words[place + 1 : place + 2] == ["--topology"] else ""
            return Run(
                plan.mesh, topology, plan.data, LOCAL, "", ray_namespace(plan.mesh), plan.endpoints, process.pid,
                since, RUNNING, host=socket.gethostname(),
            )  # fmt: skip
    return None


def _supervisors() -> Iterator[tuple[psutil.Process, list[str]]]:
    """The supervisors of this machine, with their command lines: the data folder follows the name of the module."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if SUPERVISOR in words[:-1]:
            yield process, words


def _nearby() -> Iterator[Path]:
    here = Path.cwd()
    for folder in (here, *here.parents):
        yield from (folder / ".mesh").glob("run.json")
        yield from (folder / ".mesh").glob("*/run.json")


def ray_namespace(mesh: str) -> str:
    """The namespace of a mesh in Ray: meshes that share one cluster do not see each other's actors."""
    return "mesh-" + re.sub(r"[^A-Za-z0-9_.-]", "_", mesh)
