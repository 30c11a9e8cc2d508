"""MQTT 5.0: subscription identifiers, No Local, Retain As Published and Retain Handling."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.peer import Peer, Wish
from tests.stock.way import Way

pytestmark = pytest.mark.e2e


def test_messages_have_the_subscription_identifiers(makers: Makers, way: Way, modern: Dialect) -> None:
    publisher, receiver = makers.pair(modern, way)
    receiver.subscribe(way.topic("a", "#"), Wish(1, identifier=7))
    receiver.subscribe(way.topic("a", "b"), Wish(1, identifier=268_435_455))
    receiver.subscribe(way.topic("none"))
    publisher.publish(way.topic("a", "c"), b"one")
    publisher.publish(way.topic("none"), b"none")
    publisher.publish(way.topic("a", "b"), b"both")
    one, none = receiver.expect(2)[:2]
    assert (one.props.identifiers, none.props.identifiers) == ((7,), ())
    receiver.expect_that(lambda message: 268_435_455 in message.props.identifiers, "with the second identifier")
    receiver.expect_that(lambda message: message.payload == b"both" and 7 in message.props.identifiers, "and the first")


def test_retained_message_has_the_subscription_identifier(makers: Makers, way: Way, modern: Dialect) -> None:
    publisher, receiver = makers.pair(modern, way)
    publisher.publish(way.topic("state"), b"on", retain=True)
    receiver.subscribe(way.topic("+"), Wish(1, identifier=9))
    assert receiver.expect(1)[0].props.identifiers == (9,)


def test_no_local_suppresses_the_clients_own_messages(makers: Makers, way: Way, modern: Dialect) -> None:
    other, own = makers.pair(modern, way)
    own.subscribe(way.topic("talk"), Wish(1, no_local=True))
    own.publish(way.topic("talk"), b"own")
    other.publish(way.topic("talk"), b"other")
    assert [message.payload for message in own.expect_last(b"other")] == [b"other"]


@pytest.mark.parametrize("as_published", [False, True])
def test_retain_as_published_keeps_the_flag(makers: Makers, way: Way, modern: Dialect, as_published: bool) -> None:
    publisher, receiver = makers.pair(modern, way)
    receiver.subscribe(way.topic("state"), Wish(1, as_published=as_published))
    publisher.publish(way.topic("state"), b"kept", retain=True)
    publisher.publish(way.topic("state"), b"fleeting")
    assert [message.retain for message in receiver.expect(2)] == [as_published, False]


def count_retained(peer: Peer, way: Way, handling: int) -> int:
    """The number of retained messages that come for two subscriptions to their topic."""
    peer.subscribe(way.topic("state"), Wish(1, handling=handling))
    peer.subscribe(way.topic("state"), Wish(1, handling=handling))
    peer.publish(way.topic("state"), b"end")
    return peer.payloads().count(b"on") if peer.expect_last(b"end") else 0


def test_retain_handling_controls_retained_messages(makers: Makers, way: Way, modern: Dialect) -> None:
    makers.join(modern, way).publish(way.topic("state"), b"on", retain=True)
    found = [count_retained(makers.join(modern, way), way, handling) for handling in (0, 1, 2)]
    assert found == [2, 1, 0]
