"""The full queue of a back end's session: it spills into the dead letters, or its publishers wait."""

from __future__ import annotations

import pytest

from mesh.broker.settings import HOLD
from tests.broker.letter_bench import answers, away, check_items, core, kept
from tests.support.bench import subscribe


@pytest.mark.parametrize("connected", [False, True])
def test_a_full_queue_of_a_back_end_spills(connected: bool, caplog: pytest.LogCaptureFixture) -> None:
    bench = core(backend_queue_messages=8, in_flight=1)
    slow = bench.client("slow", "app", expiry=1000, auto_ack=False)
    subscribe(slow, "t")
    if not connected:
        slow.lose()
    sender = bench.client("s")
    for number in range(12):
        sender.publish("t", b"%d" % number)
        if number == 4:
            assert bench.broker.status().filling == 0
    assert bench.broker.status().filling == 1
    assert "three quarters full" in caplog.text
    assert answers(sender) == [0] * 12
    first = 9 if connected else 8
    assert [(one[0], one[3]) for one in kept(bench)] == [
        ("backend/app/slow", b"%d" % number) for number in range(first, 12)
    ]
    bench = bench.restart()
    again = bench.client("slow", "app", clean=False, expiry=1000)
    assert again.messages() == [b"%d" % number for number in range(first)]
    bench.broker.tick()
    assert bench.broker.status().filling == 0


def test_a_back_end_whose_queue_holds_makes_publishers_wait() -> None:
    bench = core(backend_queue_messages=2, backend_when_full=HOLD)
    away(bench, "slow", "t")
    sender = bench.client("s", protocol=4)
    for number in range(4):
        sender.publish("t", b"%d" % number)
    assert answers(sender) == [0, 0]
    assert bench.broker.status().letters_waiting == 2
    assert bench.client("slow", "app", clean=False, expiry=1000).messages() == [b"0", b"1", b"2", b"3"]
    bench.turn()
    assert answers(sender) == [0, 0]
    assert kept(bench) == []
    check_items(bench)


def test_a_publisher_that_left_while_it_waited_for_a_back_end_sends_again() -> None:
    bench = core(backend_queue_messages=1, backend_when_full=HOLD)
    away(bench, "slow", "t")
    sender = bench.client("s", protocol=4)
    sender.publish("t", b"0")
    for _ in range(3):
        sender.publish("t", b"1")
        sender.lose()
        bench.turn()
        sender.connect(protocol=4)
    check_items(bench)
    assert bench.client("slow", "app", clean=False, expiry=1000).messages() == [b"0"]


@pytest.mark.parametrize("protocol", [4, 5])
def test_publishers_that_leave_while_they_wait_for_a_back_end_fill_its_queue_up_to_a_bound(protocol: int) -> None:
    """The identifier of a QoS 2 message is open, so its publisher does not send it again as a new one: it stays."""
    bench = core(backend_queue_messages=2, backend_when_full=HOLD, hold_messages=3)
    away(bench, "slow", "t")
    for number in range(9):
        sender = bench.client("s", protocol=protocol)
        sender.publish("t", b"%d" % number, 2)
        if number < 2:
            assert answers(sender) == [0]
        elif number < 5:
            assert (answers(sender), sender.closed) == ([], False)
        elif protocol == 5:
            assert answers(sender) == [0x97]
        else:
            assert (answers(sender), sender.closed) == ([], True)
        sender.lose()
        bench.turn()
    assert bench.client("slow", "app", clean=False, expiry=1000).messages() == [b"%d" % number for number in range(5)]
    check_items(bench)


def test_a_back_end_with_the_longest_client_id_has_a_share() -> None:
    bench = core(backend_queue_messages=1)
    away(bench, "c" * 65_535, "t")
    sender = bench.client("s")
    for number in range(3):
        sender.publish("t", b"%d" % number)
    assert answers(sender) == [0, 0, 0]
    assert len(kept(bench)) == 2
    assert len(kept(bench.restart())) == 2
