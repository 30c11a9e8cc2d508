"""``Holding`` alone: the table of its states, the order of its deliveries, and its bounds."""

from __future__ import annotations

from itertools import product

import pytest

from mesh.core.holding import (
    DRAINING,
    EVENTS,
    FREE,
    HELD,
    KEPT,
    PASSES,
    PORTION,
    REFUSED,
    REFUSING,
    STATES,
    TRANSITIONS,
    HeldVehicle,
    Holding,
    IllegalEvent,
)
from mesh.session.outbound import Delivery


def deliveries(count: int, size: int = 1) -> list[Delivery]:
    return [Delivery(None, 1, False, (), 0.0, 0.0, size) for _ in range(count)]


def held(holding: Holding, count: int) -> list[Delivery]:
    """``count`` deliveries for V that are held."""
    made = deliveries(count)
    holding.signal("V", True, 0.0)
    assert [holding.judge("V", delivery) for delivery in made] == [KEPT] * count
    return made


@pytest.mark.parametrize(("state", "event"), sorted(set(product(STATES, EVENTS)) - set(TRANSITIONS)))
def test_what_the_table_does_not_allow_raises(state: int, event: int) -> None:
    vehicle = HeldVehicle("V")
    vehicle.state = state
    with pytest.raises(IllegalEvent, match=f"{EVENTS[event]}: not possible while {STATES[state]}"):
        vehicle.step(event)


def test_low_for_a_vehicle_that_is_not_held_changes_nothing() -> None:
    holding = Holding(10.0)
    assert holding.signal("V", False, 0.0) is None
    assert holding.judge("V", deliveries(1)[0]) == PASSES
    assert not holding.vehicles


def test_other_vehicles_pass() -> None:
    holding = Holding(10.0)
    held(holding, 1)
    assert holding.judge("W", deliveries(1)[0]) == PASSES
    assert holding.judge("", deliveries(1)[0]) == PASSES


def test_portions_follow_each_other_until_the_vehicle_is_free() -> None:
    holding = Holding(10.0)
    made = held(holding, PORTION + 1)
    vehicle = holding.signal("V", False, 1.0)
    assert vehicle is not None
    first = holding.portion(vehicle)
    assert first == made[:PORTION]
    late = deliveries(1)[0]
    assert holding.judge("V", late) == KEPT  # behind the rest
    assert [holding.judge("V", delivery) for delivery in first] == [PASSES] * PORTION
    for delivery in first:
        assert holding.portion(vehicle) == []
        assert holding.answered(delivery) is vehicle
    second = holding.portion(vehicle)
    assert second == [made[-1], late]
    for delivery in second:
        holding.answered(delivery)
    assert holding.portion(vehicle) == []
    assert not holding.vehicles
    assert (holding.messages, holding.bytes, len(holding)) == (0, 0, 0)


def test_a_portion_that_was_not_sent_in_time_comes_first_again() -> None:
    holding = Holding(10.0)
    made = held(holding, 70)
    vehicle = holding.signal("V", False, 1.0)
    assert vehicle is not None
    portion = holding.portion(vehicle)
    assert [holding.judge("V", delivery) for delivery in portion[:10]] == [PASSES] * 10
    holding.signal("V", True, 2.0)
    assert [holding.judge("V", delivery) for delivery in portion[10:20]] == [KEPT] * 10
    holding.signal("V", False, 3.0)
    # Those behind would overtake the ones that were kept.
    assert [holding.judge("V", delivery) for delivery in portion[20:]] == [KEPT] * 44
    assert holding.portion(vehicle) == []
    for delivery in portion[:10]:
        holding.answered(delivery)
    assert holding.portion(vehicle) == made[10:70]


def test_patience_is_spent_once_until_the_queue_has_drained() -> None:
    holding = Holding(10.0)
    made = held(holding, 2)
    holding.signal("V", True, 5.0)  # a repeated signal grants no more time
    assert holding.impatient(9.9) == []
    (vehicle,) = holding.impatient(10.0)
    assert [holding.refuse(vehicle.held, place) for place in range(2)] == made
    assert not holding.admits("V", 1)
    assert holding.judge("V", deliveries(1)[0]) == REFUSED
    holding.signal("V", True, 11.0)
    assert not holding.admits("V", 1)
    assert holding.impatient(100.0) == []
    assert holding.refused == 5
    assert holding.signal("V", False, 101.0) is vehicle
    assert holding.admits("V", 1)


def test_a_spooled_delivery_is_never_refused() -> None:
    holding = Holding(10.0)
    spooled, late = deliveries(2)
    spooled.item = late.item = 7
    holding.signal("V", True, 0.0)
    holding.judge("V", spooled)
    (vehicle,) = holding.impatient(10.0)
    assert holding.refuse(vehicle.held, 0) is None
    assert holding.judge("V", late) == KEPT
    holding.signal("V", False, 11.0)
    assert holding.portion(vehicle) == [spooled, late]


def test_held_messages_are_bounded_in_count_and_bytes() -> None:
    holding = Holding(10.0)
    holding.signal("V", True, 0.0)
    for delivery in deliveries(64, 1 << 20):
        assert holding.admits("V", delivery.size)
        holding.judge("V", delivery)
    assert not holding.admits("V", 1)
    assert holding.admits("W", 1)
    one = Holding(10.0)
    held(one, 16_384)
    assert not one.admits("V", 1)
    many = Holding(10.0)
    for name in "ABCDE":
        many.signal(name, True, 0.0)
    for name in "ABCD":
        assert [many.judge(name, delivery) for delivery in deliveries(16_384)] == [KEPT] * 16_384
    assert not many.admits("E", 1)


def test_a_portion_that_was_not_sent_is_the_first_of_the_next() -> None:
    holding = Holding(10.0)
    made = held(holding, 70)
    vehicle = holding.signal("V", False, 1.0)
    assert vehicle is not None
    portion = holding.portion(vehicle)
    holding.signal("V", True, 2.0)
    for delivery in portion:
        holding.judge("V", delivery)
    assert len(holding) == 70
    holding.signal("V", False, 3.0)
    assert holding.portion(vehicle) == made[:64]
    for delivery in portion:
        holding.answered(delivery)
    assert holding.portion(vehicle) == made[64:]
    assert (holding.messages, holding.bytes) == (0, 0)


def test_states() -> None:
    assert sorted(STATES) == [FREE, HELD, DRAINING, REFUSING]
