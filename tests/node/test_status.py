"""The failures that a node's status names."""

from __future__ import annotations

from dataclasses import replace

from mesh.broker.broker import Broker
from mesh.broker.settings import Settings
from mesh.broker.trace import Tracer
from mesh.figures.instrument import Distribution
from mesh.journal.status import JournalStatus
from mesh.node.status import BrokerHostStatus
from mesh.session.store import Store

JOURNAL = JournalStatus(0, 0, 0, 1, 0, 0, Distribution((), (0,), 0.0), failing=False)


def test_status_names_a_failed_journal() -> None:
    broker = Broker(Settings(), Store(), lambda: 1.0, Tracer())
    status = BrokerHostStatus(broker.status(), JOURNAL)
    assert status.detail == ""
    failing = replace(JOURNAL, failing=True, error="[Errno 28] No space left on device")
    assert replace(status, journal=failing).detail == (
        "the journal cannot be written: [Errno 28] No space left on device"
    )
