"""The bounds of dead letters: by share, node and age, and what happens at them."""

from __future__ import annotations

import pytest

from mesh.broker.letter import PREFIX
from mesh.broker.principal import VEHICLE
from mesh.broker.settings import HOLD
from tests.broker.letter_bench import SIZE, answers, check_items, full_edge, kept, letters_of, reader


def test_the_oldest_letter_of_a_full_share_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    bench = full_edge(dead_letter_share=3 * SIZE)
    letters_of(bench, "V1", 5)
    letters_of(bench, "V2", 2)
    assert [payload[:1] for _, _, _, payload in kept(bench)] == [b"2", b"3", b"4", b"0", b"1"]
    status = bench.broker.status()
    assert (status.letters, status.letters_full, status.letters_dropped_share) == (5, 7, 2)
    assert status.letters_bytes == 5 * SIZE
    assert "its share is full" in caplog.text
    check_items(bench.restart())


def test_the_oldest_letter_of_a_full_node_makes_room() -> None:
    bench = full_edge(dead_letter_bytes=3 * SIZE)
    letters_of(bench, "V1", 2)
    letters_of(bench, "V2", 2)
    assert [(share, payload[:1]) for share, _, _, payload in kept(bench)] == [
        ("vehicle/V1", b"1"), ("vehicle/V2", b"0"), ("vehicle/V2", b"1")
    ]  # fmt: skip
    assert bench.broker.status().letters_dropped_node == 1
    check_items(bench.restart())


def test_a_letter_ends_with_its_age() -> None:
    bench = full_edge(dead_letter_age=100)
    letters_of(bench, "V1", 1)
    bench.clock.now += 60
    letters_of(bench, "V1", 1)
    bench.clock.now += 41
    bench.broker.tick()
    bench.turn()
    assert len(kept(bench)) == 1
    bench = bench.restart()
    bench.clock.now += 60
    bench.broker.tick()
    assert kept(bench) == []
    assert bench.broker.status().letters_dropped_age == 1
    check_items(bench)


def test_with_hold_nothing_is_dropped_and_publishers_wait() -> None:
    bench = full_edge(dead_letter_share=2 * SIZE, dead_letter_when_full=HOLD)
    vehicle = letters_of(bench, "V1", 4)
    assert answers(vehicle) == [0, 0]
    assert len(kept(bench)) == 4
    assert bench.broker.status().letters_waiting == 2
    other = letters_of(bench, "V2", 1)
    assert answers(other) == [0]
    drain = reader(bench, f"{PREFIX}vehicles/V1/#")
    bench.turn()
    assert len(drain.messages()) == 4
    assert answers(vehicle) == [0, 0]
    assert bench.broker.status().letters_waiting == 0
    check_items(bench.restart())


def test_with_hold_a_repeat_after_a_lost_connection_takes_no_second_place() -> None:
    bench = full_edge(dead_letter_share=SIZE, dead_letter_when_full=HOLD)
    vehicle = letters_of(bench, "V1", 1)
    for _ in range(5):
        vehicle.publish("vehicles/V1/status", b"1" + b"." * 1000, packet_id=9)
        vehicle.lose()
        bench.turn()
        vehicle.connect(protocol=4, clean=False)
    assert len(kept(bench)) == 1
    check_items(bench)


def test_with_hold_publishers_that_leave_exceed_the_bounds_by_a_bound() -> None:
    bench = full_edge(dead_letter_share=SIZE, dead_letter_when_full=HOLD, hold_bytes=3 * SIZE)
    letters_of(bench, "V1", 1)
    for number in range(8):
        vehicle = bench.client("q", "V1", VEHICLE, protocol=4)
        vehicle.publish("vehicles/V1/status", b"%d" % number + b"." * 1000, 2)
        assert (answers(vehicle), vehicle.closed) == ([], number >= 3)
        vehicle.lose()
        bench.turn()
    assert len(kept(bench)) == 4
    check_items(bench)


def test_with_hold_a_qos_2_message_that_waits_survives_a_crash() -> None:
    """Its identifier is open in the journal, so its publisher's repeat is no new message."""
    bench = full_edge(dead_letter_share=SIZE, dead_letter_when_full=HOLD)
    letters_of(bench, "V1", 1)
    vehicle = bench.client("q", "V1", VEHICLE, protocol=4, clean=False)
    vehicle.publish("vehicles/V1/status", b"once" + b"." * 1000, 2, packet_id=5)
    assert answers(vehicle) == []
    bench = bench.restart()
    vehicle = bench.client("q", "V1", VEHICLE, protocol=4, clean=False)
    vehicle.publish("vehicles/V1/status", b"once" + b"." * 1000, 2, packet_id=5, dup=True)
    assert answers(vehicle) == [0]
    assert [payload[:4] for _, _, _, payload in kept(bench)][1:] == [b"once"]
