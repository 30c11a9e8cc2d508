"""Later subscribers get retained messages until they are replaced or cleared."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.peer import Wish
from tests.stock.way import Way

pytestmark = pytest.mark.e2e


def test_last_retained_message_is_kept(makers: Makers, way: Way, dialect: Dialect) -> None:
    publisher, receiver = makers.pair(dialect, way)
    publisher.publish(way.topic("state"), b"old", retain=True)
    publisher.publish(way.topic("state"), b"new", retain=True)
    receiver.subscribe(way.topic("#"))
    message = receiver.expect_last(b"new")[0]
    assert (message.topic, message.payload, message.retain) == (way.topic("state"), b"new", True)
    assert receiver.payloads() == [b"new"]


def test_connected_session_gets_a_live_message(makers: Makers, way: Way, dialect: Dialect) -> None:
    publisher, receiver = makers.pair(dialect, way)
    receiver.subscribe(way.topic("state"))
    publisher.publish(way.topic("state"), b"on", retain=True)
    assert not receiver.expect(1)[0].retain


def test_empty_message_clears_the_retained_one(makers: Makers, way: Way, dialect: Dialect) -> None:
    publisher, receiver = makers.pair(dialect, way)
    for name in ("cleared", "kept"):
        publisher.publish(way.topic(name), b"on", retain=True)
    publisher.publish(way.topic("cleared"), b"", retain=True)
    receiver.subscribe(way.topic("cleared"))
    receiver.subscribe(way.topic("kept"), Wish(1))
    assert [message.topic for message in receiver.expect(1)] == [way.topic("kept")]


def test_every_matching_retained_message_is_sent(makers: Makers, way: Way, dialect: Dialect) -> None:
    publisher, receiver = makers.pair(dialect, way)
    for number in range(6):
        publisher.publish(way.topic("door", str(number), "state"), str(number).encode(), number % 3, retain=True)
    receiver.subscribe(way.topic("door", "+", "state"), Wish(2))
    assert sorted(int(message.payload) for message in receiver.expect(6)) == list(range(6))
    assert all(message.retain and message.qos == int(message.payload) % 3 for message in receiver.received)
