"""A filter brings the messages that it matches and no others, until the client unsubscribes."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.peer import Wish
from tests.stock.way import Way

pytestmark = pytest.mark.e2e
TOPICS = ("a", "a/b", "a/b/c", "a/x/c", "a/", "b", "A/b", "a/ü/c")
CASES = {
    "a": {"a"},
    "a/#": {"a", "a/b", "a/b/c", "a/x/c", "a/", "a/ü/c"},
    "a/+": {"a/b", "a/"},
    "a/+/c": {"a/b/c", "a/x/c", "a/ü/c"},
    "+/b": {"a/b", "A/b"},
    "+": {"a", "b"},
    "+/+/+": {"a/b/c", "a/x/c", "a/ü/c"},
    "a/b/c/#": {"a/b/c"},
    "+/": {"a/"},
    "#": set(TOPICS),
}


def test_filters_match_exactly_their_topics(makers: Makers, way: Way, current: Dialect) -> None:
    publisher = makers.join(current, way)
    receivers = {filter: makers.join(current, way) for filter in CASES}
    for filter, receiver in receivers.items():
        assert receiver.subscribe(way.topic("t", filter)) == 1
        receiver.subscribe(way.topic("end"))
    for topic in TOPICS:
        publisher.publish(way.topic("t", topic), topic.encode())
    publisher.publish(way.topic("end"), b"end")
    for filter, receiver in receivers.items():
        found = {message.payload.decode() for message in receiver.expect_last(b"end")} - {"end"}
        assert found == CASES[filter], filter
        assert len(receiver.received) == len(found) + 1


def test_unsubscribed_filter_brings_no_messages(makers: Makers, way: Way, dialect: Dialect) -> None:
    publisher, receiver = makers.pair(dialect, way)
    receiver.subscribe(way.topic("off"))
    receiver.subscribe(way.topic("on"))
    publisher.publish(way.topic("off"), b"before")
    receiver.expect_last(b"before")
    assert receiver.unsubscribe(way.topic("off")) in (0, None)
    publisher.publish(way.topic("off"), b"after")
    publisher.publish(way.topic("on"), b"end")
    assert [message.payload for message in receiver.expect_last(b"end")] == [b"before", b"end"]


def test_second_subscription_replaces_the_first(makers: Makers, way: Way, dialect: Dialect) -> None:
    publisher, receiver = makers.pair(dialect, way)
    assert receiver.subscribe(way.topic("again"), Wish(0)) == 0
    assert receiver.subscribe(way.topic("again"), Wish(2)) == 2
    publisher.publish(way.topic("again"), b"first", 2)
    publisher.publish(way.topic("again"), b"end", 2)
    assert [(message.payload, message.qos) for message in receiver.expect_last(b"end")] == [(b"first", 2), (b"end", 2)]
