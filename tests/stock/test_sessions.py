"""A lasting session keeps subscriptions and messages of its disconnected client; a clean start ends it."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.peer import V31, Options, Peer, Wish
from tests.stock.way import Way

pytestmark = pytest.mark.e2e
EXPIRY = 3600


def lasting(makers: Makers, dialect: Dialect, way: Way) -> Options:
    """The options of a client whose session outlives its connection."""
    return makers.options(dialect, way, clean=False, expiry=EXPIRY)


def asleep(makers: Makers, dialect: Dialect, way: Way) -> Options:
    """The options of a client that has subscribed to ``wait`` with QoS 2 and disconnected."""
    options = lasting(makers, dialect, way)
    first = makers.fresh(dialect[0])
    assert not first.connect(options).present
    assert first.subscribe(way.topic("wait"), Wish(2)) == 2
    first.leave()
    return options


def back(makers: Makers, dialect: Dialect, options: Options) -> Peer:
    """The client, connected again to its session. MQTT 3.1 does not report the session."""
    peer = makers.fresh(dialect[0])
    assert peer.connect(options).present or dialect[1] == V31
    return peer


def test_queued_messages_arrive_in_order(makers: Makers, way: Way, dialect: Dialect) -> None:
    options = asleep(makers, dialect, way)
    publisher = makers.join(dialect, way)
    for number in range(10):
        publisher.publish(way.topic("wait"), str(number).encode(), 1 + number % 2)
    messages = back(makers, dialect, options).expect(10)
    # Libraries report a QoS 2 message when its exchange is complete, so the order holds within one QoS only.
    assert [int(message.payload) for message in messages if message.qos == 1] == list(range(0, 10, 2))
    assert [int(message.payload) for message in messages if message.qos == 2] == list(range(1, 10, 2))
    assert not any(message.dup or message.retain for message in messages)


def test_queued_message_arrives_once(makers: Makers, way: Way, dialect: Dialect) -> None:
    options = asleep(makers, dialect, way)
    publisher = makers.join(dialect, way)
    publisher.publish(way.topic("wait"), b"once", 2)
    peer = back(makers, dialect, options)
    peer.expect(1)
    peer.subscribe(way.topic("other"))  # its SUBACK comes after the messages sent before
    peer.leave()
    again = back(makers, dialect, options)
    publisher.publish(way.topic("wait"), b"next")
    assert [message.payload for message in again.expect_last(b"next")] == [b"next"]


def test_clean_start_ends_the_session(makers: Makers, way: Way, dialect: Dialect) -> None:
    options = asleep(makers, dialect, way)
    publisher = makers.join(dialect, way)
    publisher.publish(way.topic("wait"), b"old")
    peer, greeting = makers.greeted(dialect, way, client_id=options.client_id, clean=True)
    assert not greeting.present
    publisher.publish(way.topic("wait"), b"not subscribed any more")
    peer.subscribe(way.topic("new"))
    publisher.publish(way.topic("new"), b"new")
    assert [message.payload for message in peer.expect_last(b"new")] == [b"new"]


def test_clean_session_ends_with_its_connection(makers: Makers, way: Way, dialect: Dialect) -> None:
    options = makers.options(dialect, way)
    first = makers.fresh(dialect[0])
    first.connect(options)
    first.subscribe(way.topic("wait"))
    first.leave()
    _, greeting = makers.greeted(dialect, way, client_id=options.client_id, clean=False)
    assert not greeting.present


def test_unsubscribe_applies_to_the_session(makers: Makers, way: Way, dialect: Dialect) -> None:
    options = asleep(makers, dialect, way)
    peer = back(makers, dialect, options)
    peer.subscribe(way.topic("kept"))
    assert peer.unsubscribe(way.topic("wait")) in (0, None)
    peer.leave()
    publisher = makers.join(dialect, way)
    publisher.publish(way.topic("wait"), b"no")
    publisher.publish(way.topic("kept"), b"yes")
    assert [message.payload for message in back(makers, dialect, options).expect(1)] == [b"yes"]
