"""The failures that a node's status names."""

from __future__ import annotations

from dataclasses import replace

from mesh.broker.broker import Broker
from mesh.broker.principal import VEHICLE
from mesh.broker.settings import Settings
from mesh.broker.trace import Tracer
from mesh.figures.instrument import Distribution
from mesh.journal.status import JournalStatus
from mesh.node.status import BrokerHostStatus
from mesh.session.store import Store
from mesh.transport.status import TurnStatus

JOURNAL = JournalStatus(0, 0, 0, 1, 0, 0, Distribution((), (0,), 0.0), failing=False)
TURNS = TurnStatus(0.0, Distribution((), (0,), 0.0))


def test_status_names_a_budget_that_is_used_up_and_who_holds_the_most() -> None:
    settings = Settings()
    settings.disk = 1000
    broker = Broker(settings, Store(), lambda: 1.0, Tracer())
    share = broker.quotas.share_of(VEHICLE, "V7")
    broker.quotas.opened(share, False, 4096)
    broker.quotas.disk = 950
    broker.end_turn()
    status = BrokerHostStatus(broker.status(), replace(JOURNAL, failing=True, error="no space"), TURNS)
    assert status.detail == (
        "the journal cannot be written: no space; the disk is at 950 bytes of 1000: new load is refused; "
        "vehicle 'V7' holds the most, 4096 bytes"
    )
    assert status.broker.quotas.strained
    broker.quotas.disk = 799
    broker.end_turn()
    assert BrokerHostStatus(broker.status(), JOURNAL, TURNS).detail == ""


def test_status_names_a_failed_journal() -> None:
    broker = Broker(Settings(), Store(), lambda: 1.0, Tracer())
    status = BrokerHostStatus(broker.status(), JOURNAL, TURNS)
    assert status.detail == ""
    failing = replace(JOURNAL, failing=True, error="[Errno 28] No space left on device")
    assert replace(status, journal=failing).detail == (
        "the journal cannot be written: [Errno 28] No space left on device"
    )


def test_status_names_queues_of_back_ends_and_full_dead_letters() -> None:
    broker = Broker(Settings(), Store(), lambda: 0.0, Tracer()).status()
    assert BrokerHostStatus(broker, JOURNAL, TURNS).detail == ""
    broker = replace(broker, filling=2, letters_waiting=3, letters_dropped_share=4, letters_dropped_node=1)
    found = BrokerHostStatus(broker, JOURNAL, TURNS).detail
    assert found.startswith("2 queues of back ends are three quarters full or more; 3 messages wait for room in ")
    assert found.endswith("; 5 dead letters were dropped because the dead letters are full")
