"""One client's messages of every QoS reach another client unchanged, in every MQTT version of the client."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.peer import Wish
from tests.stock.way import Way

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_message_arrives_once(makers: Makers, way: Way, dialect: Dialect, qos: int) -> None:
    publisher, receiver = makers.pair(dialect, way)
    assert receiver.subscribe(way.topic("report"), Wish(qos)) == qos
    assert publisher.publish(way.topic("report"), b"first", qos) in (0, None)
    publisher.publish(way.topic("report"), b"second", qos)
    first, second = receiver.expect_last(b"second")
    assert (first.topic, first.payload, first.qos) == (way.topic("report"), b"first", qos)
    assert (second.qos, second.retain, second.dup) == (qos, False, False)


def test_message_comes_at_the_lower_of_both_qos(makers: Makers, way: Way, dialect: Dialect) -> None:
    publisher, receiver = makers.pair(dialect, way)
    receiver.subscribe(way.topic("low"), Wish(0))
    receiver.subscribe(way.topic("high"), Wish(2))
    publisher.publish(way.topic("low"), b"low", 2)
    publisher.publish(way.topic("high"), b"high", 1)
    receiver.expect(2)
    assert {(message.payload, message.qos) for message in receiver.received} == {(b"low", 0), (b"high", 1)}


def test_empty_payload_is_delivered(makers: Makers, way: Way, dialect: Dialect) -> None:
    publisher, receiver = makers.pair(dialect, way)
    receiver.subscribe(way.topic("empty"))
    publisher.publish(way.topic("empty"), b"")
    assert receiver.expect(1)[0].payload == b""


def test_client_receives_its_own_messages(makers: Makers, way: Way, dialect: Dialect) -> None:
    alone = makers.join(dialect, way)
    alone.subscribe(way.topic("echo"))
    alone.publish(way.topic("echo"), b"hello")
    assert alone.expect(1)[0].payload == b"hello"


def test_large_payload_arrives_unchanged(makers: Makers, way: Way, dialect: Dialect) -> None:
    publisher, receiver = makers.pair(dialect, way)
    payload = bytes(range(250)) * 2000
    receiver.subscribe(way.topic("large"), Wish(2))
    for qos in (0, 1, 2):
        publisher.publish(way.topic("large"), payload, qos)
    assert [(message.payload == payload, message.qos) for message in receiver.expect(3)] == [
        (True, 0), (True, 1), (True, 2),
    ]  # fmt: skip
