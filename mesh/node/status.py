"""What every node tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

from mesh.broker.status import BrokerStatus
from mesh.figures.instrument import gauge
from mesh.figures.status import Status
from mesh.journal.status import JournalStatus
from mesh.telemetry.status import SpansStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus(Status):
    """What ``mesh status`` shows of a node; this alone while the node starts, a subclass for its role afterwards.

    ``host`` is where it listens; ``metrics`` where Prometheus reads it, empty if nowhere; ``detail`` is one sentence on
    what is wrong. ``queued`` are messages that wait.
    """

    host: str = ""
    metrics: str = ""
    detail: str = ""
    connections: int = 0
    sessions: int = 0
    queued: int = 0


@final
@dataclass(frozen=True, slots=True)
class EngineStatus(Status):
    """An engine and its journal."""

    broker: BrokerStatus
    journal: JournalStatus

    @property
    def detail(self) -> str:
        """What is wrong; empty if nothing is."""
        return f"the journal cannot be written: {self.journal.error}" if self.journal.failing else ""


@final
@dataclass(frozen=True, slots=True)
class ServicesStatus(Status):
    """What a node runs beside its own work; ``spans`` if it traces."""

    started: Annotated[
        float, gauge("mesh_start_time_seconds", "When the node began to start, in seconds since 1970.", unit="seconds")
    ]
    etcd: Annotated[bool, gauge("mesh_etcd_up", "Whether changes arrive from etcd.")]
    mapped: Annotated[int, gauge("mesh_map_records", "Records of vehicles in the node's memory.")]
    spans: SpansStatus | None
