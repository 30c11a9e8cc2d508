"""The status that nodes have in common: the broker of edges and cores, and the services of all nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

from mesh.broker.status import BrokerStatus
from mesh.figures.instrument import counter, gauge
from mesh.figures.status import Status
from mesh.journal.status import JournalStatus
from mesh.telemetry.status import SpansStatus
from mesh.transport.status import TurnStatus


@final
@dataclass(frozen=True, slots=True)
class BrokerHostStatus(Status):
    """A broker and its journal."""

    broker: BrokerStatus
    journal: JournalStatus
    turns: TurnStatus
    faults: Annotated[
        int, counter("mesh_broker_faults_total", "Errors of the mesh in the broker's work of a turn.")
    ] = 0
    fault: str = ""
    trouble: str = ""

    @property
    def detail(self) -> str:
        """What is wrong, in one sentence each; empty if nothing is."""
        journal = self.journal
        failure = f"the journal cannot be written: {journal.error}" if journal.failing else ""
        grows = f"the journal grows, because a segment cannot be cleaned: {journal.halted}" if journal.halted else ""
        parts = (failure, grows, self.broker.quotas.strain, self.fault, self.trouble, *self._queues())
        return "; ".join(part for part in parts if part)

    def _queues(self) -> list[str]:
        """What is wrong with queues of back ends and the dead letters."""
        broker, found = self.broker, list[str]()
        if broker.filling:
            found.append(f"{broker.filling} queues of back ends are three quarters full or more")
        if broker.letters_waiting:
            wait = "messages wait for room in queues of back ends or in the dead letters"
            found.append(f"{broker.letters_waiting} {wait}")
        dropped = broker.letters_dropped_share + broker.letters_dropped_node
        if dropped:
            found.append(f"{dropped} dead letters were dropped because the dead letters are full")
        return found


@final
@dataclass(frozen=True, slots=True)
class ServicesStatus(Status):
    """The services that a node runs beside its own work; ``spans`` is set if it traces."""

    started: Annotated[
        float, gauge("mesh_start_time_seconds", "When the node began to start, in seconds since 1970.", unit="seconds")
    ]
    etcd: Annotated[bool, gauge("mesh_etcd_up", "Whether changes arrive from etcd.")]
    mapped: Annotated[int, gauge("mesh_map_records", "Records of vehicles in the node's memory.")]
    log_lines_lost: Annotated[
        int, counter("mesh_log_lines_lost_total", "Lines that the log could not take, or not fast enough.")
    ]
    spans: SpansStatus | None
