"""The status of a mesh: the controller writes it, ``mesh status`` and the console show it.

Knows the values, their form as JSON and the file; never reads them from a mesh (``look`` does). What always holds: all
are plain values of known types; keys that this version of the package does not know are ignored; a full disk does not
keep the status from being written.
"""

from __future__ import annotations

import errno
import json
import os
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Final

from mesh.cluster.run import FAILED, STOPPING, status_path
from mesh.cluster.run import replace as replace_file
from mesh.private import read_own

READY: Final = "ready"
UNREACHABLE: Final = "unreachable"
"""Nothing was heard of the node for a while: its row is the last that is known."""
DAMAGED: Final = "damaged"
"""The node stays down: its journal is damaged."""
DEGRADED: Final = "degraded"
"""All nodes of the mesh are ready, but those with a damaged journal."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node. ``host``: an address of the machine that it runs on; ``age``: seconds since it last said what the row
    says; ``revision``: of the settings that it follows, 0 if it has not said; ``begun``: of those that it was started
    with; ``restarts``: how often its process was restarted; ``attempts``: how often it tried to start; ``uptime``:
    seconds since it became ready; ``detail``: one sentence that explains its state; ``metrics``: the address of its
    metrics, kept while it does not run; ``figures``: its numbers by series (see ``figures.status.by_series``), while it
    is ready.
    """

    name: str
    role: str
    state: str
    pid: int = 0
    host: str = ""
    age: float = 0.0
    revision: int = 0
    begun: int = 0
    listen: tuple[str, ...] = ()
    connections: int = 0
    sessions: int = 0
    queued: int = 0
    restarts: int = 0
    attempts: int = 0
    uptime: float = 0.0
    detail: str = ""
    metrics: str = ""
    figures: dict[str, float] = field(default_factory=dict)


# The file is filled up with spaces to a multiple of this, and has at least half of it as a reserve: on a full disk the
# next status is written over the last one.
_ROOM: Final = 16 << 10
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)

# A reader may meet a file that is being written over: it tries again.
_TRIES: Final = 5
_AGAIN: Final = 0.01

_KNOWN: Final = frozenset(item.name for item in fields(NodeRow))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The controller's view of a mesh. ``written``: when it was written to the file, in seconds since 1970; ``note``:
    what is wrong with the data folder, in one sentence; ``warnings``: what is dangerous, one sentence each."""

    mesh: str
    state: str
    nodes: tuple[NodeRow, ...]
    written: float = 0.0
    note: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def age(self) -> float:
        """Seconds since it was written."""
        return max(0.0, time.time() - self.written)

    def to_json(self) -> str:
        """The text for the file, with the present time: by it a reader sees whether the controller still writes."""
        return json.dumps(asdict(replace(self, written=time.time())))

    @staticmethod
    def from_json(text: str | bytes) -> Snapshot:
        """The snapshot in a text of ``to_json``. Raises ``ValueError`` for any other text."""
        try:
            value = json.loads(text)
            rows = [{name: item for name, item in row.items() if name in _KNOWN} for row in value["nodes"]]
            nodes = tuple(NodeRow(**{**row, "listen": tuple(row.get("listen", ()))}) for row in rows)
            return Snapshot(
                str(value["mesh"]), str(value["state"]), nodes, float(value["written"]), str(value.get("note", "")),
                tuple(str(text) for text in value.get("warnings", ())),
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no status of a mesh: {error!r}") from error


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """The value of ``mesh status --json``: a run and its nodes. ``error`` is one sentence. ``revision``: the settings
    that are in force, 0 if not known; ``age``: seconds since the controller's last word; ``notes``: what could not be
    reached, ``warnings``: what is dangerous, one sentence each."""

    mesh: str
    state: str
    error: str
    topology: str
    data: str
    ray: str
    etcd: tuple[str, ...]
    supervisor: int
    nodes: tuple[NodeRow, ...]
    host: str = ""
    revision: int = 0
    age: float = 0.0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def all_ready(self) -> bool:
        """Whether every node serves."""
        ready = all(row.state == READY for row in self.nodes)
        return bool(self.nodes) and ready and self.state not in (STOPPING, FAILED, UNREACHABLE)

    @property
    def damaged(self) -> tuple[NodeRow, ...]:
        """The nodes that stay down because of their journals."""
        return tuple(row for row in self.nodes if row.state == DAMAGED)

    @property
    def settled(self) -> bool:
        """Whether every node serves, or stays down because of its journal."""
        settled = all(row.state in (READY, DAMAGED) for row in self.nodes)
        return bool(self.nodes) and settled and self.state not in (STOPPING, FAILED)

    def to_json(self, indent: int | None = None) -> str:
        return json.dumps(asdict(self), indent=indent)


def load_status(data: Path) -> Snapshot | None:
    """The latest snapshot that the controller wrote, or ``None``. Raises ``NotPrivate``."""
    for _ in range(_TRIES):
        try:
            return Snapshot.from_json(read_own(status_path(data)))
        except FileNotFoundError:
            return None
        except ValueError:
            time.sleep(_AGAIN)
    return None


def save_status(data: Path, snapshot: Snapshot) -> None:
    """Write the snapshot to the file of this data folder. On a full disk it is written over the present file, which
    needs no room. Raises ``OSError``, also if there is no file yet."""
    path = status_path(data)
    text = snapshot.to_json()
    size = -(-(len(text) + _ROOM // 2) // _ROOM) * _ROOM
    try:
        replace_file(path, text.ljust(size))
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _write_over(path, replace(snapshot, note=f"the status in {data} cannot be replaced: {error.strerror}"), error)


def _write_over(path: Path, snapshot: Snapshot, cause: OSError) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise cause from None
    try:
        size = os.fstat(descriptor).st_size
        text = snapshot.to_json()
        if len(text) > size:  # more nodes, or longer sentences, than there was room for
            text = replace(snapshot, nodes=tuple(replace(row, figures={}) for row in snapshot.nodes)).to_json()
        if len(text) > size:
            raise cause
        os.pwrite(descriptor, text.ljust(size).encode(), 0)
    finally:
        os.close(descriptor)
