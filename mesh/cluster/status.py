"""The status of a mesh: the controller writes it, ``mesh status`` and the console show it.

Knows the values and their form as JSON; never reads them from a mesh (``look`` does). What always holds: all are plain
values of known types; keys that this version of the package does not know are ignored.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Final

from mesh.cluster.run import FAILED, STOPPING, status_path

READY: Final = "ready"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node. ``restarts``: how often its process was restarted; ``attempts``: how often it tried to start;
    ``uptime``: seconds since it became ready; ``detail``: one sentence that explains its state; ``metrics``: the
    address of its metrics, kept while it does not run; ``figures``: its numbers by series (see
    ``figures.status.by_series``), while it is ready.
    """

    name: str
    role: str
    state: str
    pid: int = 0
    host: str = ""
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


_KNOWN: Final = frozenset(item.name for item in fields(NodeRow))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The controller's view of a mesh. ``written``: when it was written to the file, in seconds since 1970."""

    mesh: str
    state: str
    nodes: tuple[NodeRow, ...]
    written: float = 0.0

    @property
    def age(self) -> float:
        """Seconds since it was written."""
        return max(0.0, time.time() - self.written)

    def to_json(self) -> str:
        """The text for the file, with the present time: by it a reader sees whether the controller still writes."""
        return json.dumps(asdict(replace(self, written=time.time())))

    @staticmethod
    def from_json(text: str) -> Snapshot:
        """The snapshot in a text of ``to_json``. Raises ``ValueError`` for any other text."""
        try:
            value = json.loads(text)
            rows = [{name: item for name, item in row.items() if name in _KNOWN} for row in value["nodes"]]
            nodes = tuple(NodeRow(**{**row, "listen": tuple(row.get("listen", ()))}) for row in rows)
            return Snapshot(str(value["mesh"]), str(value["state"]), nodes, float(value["written"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no status of a mesh: {error!r}") from error


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """The value of ``mesh status --json``: a run and its nodes. ``error`` is one sentence."""

    mesh: str
    state: str
    error: str
    topology: str
    data: str
    ray: str
    etcd: tuple[str, ...]
    supervisor: int
    nodes: tuple[NodeRow, ...]

    @property
    def all_ready(self) -> bool:
        """Whether every node serves."""
        ready = all(row.state == READY for row in self.nodes)
        return bool(self.nodes) and ready and self.state not in (STOPPING, FAILED)

    def to_json(self, indent: int | None = None) -> str:
        return json.dumps(asdict(self), indent=indent)


def load_status(data: Path) -> Snapshot | None:
    """The latest snapshot that the controller wrote, or ``None``."""
    try:
        return Snapshot.from_json(status_path(data).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None

