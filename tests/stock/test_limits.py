"""MQTT 5.0: each side keeps to the limits of the other: maximum packet size and receive maximum."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.mqttjs_peer import JsPeer, Node
from tests.stock.peer import V5
from tests.stock.way import Way
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
MIB = 1 << 20
PACKET_TOO_LARGE = 0x95


def test_server_announces_its_limits(makers: Makers, way: Way, modern: Dialect) -> None:
    _, greeting = makers.greeted(modern, way)
    assert greeting.maximum_packet == MIB
    assert greeting.receive_maximum == 1024


def test_server_announces_an_alias_maximum(makers: Makers, way: Way, modern: Dialect) -> None:
    _, greeting = makers.greeted(modern, way)
    assert greeting.alias_maximum


def test_message_too_large_for_the_client_is_dropped(makers: Makers, way: Way, modern: Dialect) -> None:
    publisher, receiver = makers.pair(modern, way, maximum_packet=200)
    receiver.subscribe(way.topic("t"))
    for size in (100, 200, 5000, 101):
        publisher.publish(way.topic("t"), b"x" * size)
    assert [len(message.payload) for message in receiver.expect_last(b"x" * 101)] == [100, 101]


def test_packet_too_large_for_the_server_ends_connection(makers: Makers, way: Way, modern: Dialect) -> None:
    publisher = makers.join(modern, way)
    publisher.send(way.topic("t"), bytes(MIB + 1))
    wait_until(lambda: publisher.record.closes, "the end of the connection")
    assert publisher.record.ends == [PACKET_TOO_LARGE]


@pytest.mark.parametrize("kind", ["paho", "gmqtt"])
def test_server_keeps_to_the_clients_receive_maximum(makers: Makers, way: Way, kind: str) -> None:
    publisher, receiver = makers.pair((kind, V5), way, receive_maximum=3, hold=True)
    receiver.subscribe(way.topic("t"))
    for number in range(10):
        publisher.publish(way.topic("t"), str(number).encode())
    receiver.subscribe(way.topic("other"))  # its SUBACK comes after the messages sent before
    assert [message.payload for message in receiver.expect(3)] == [b"0", b"1", b"2"]
    receiver.release()
    assert [int(message.payload) for message in receiver.expect(10)] == list(range(10))


@pytest.mark.parametrize("count", [500, 1500])
def test_client_above_the_receive_maximum_loses_no_message(makers: Makers, way: Way, node: Node, count: int) -> None:
    """MQTT.js sends all at once; if the server closes (0x93), it reconnects and repeats unacknowledged messages."""
    publisher = JsPeer(node)
    receiver = makers.join(("mqttjs", V5), way)
    receiver.subscribe(way.topic("t"))
    publisher.connect(makers.options(("mqttjs", V5), way, reconnect=True))
    publisher.rush(way.topic("t"), [str(number).encode() for number in range(count)])
    assert count > 1024 or publisher.record.closes == 0
    publisher.leave()
    receiver.expect_that(lambda message: int(message.payload) == count - 1, "the last one")
    assert {int(message.payload) for message in receiver.received} == set(range(count))


def test_receive_maximum_of_1_keeps_the_order(makers: Makers, way: Way, modern: Dialect) -> None:
    publisher, receiver = makers.pair(modern, way, receive_maximum=1)
    receiver.subscribe(way.topic("t"))
    publisher.pipeline(way.topic("t"), [str(number).encode() for number in range(100)])
    assert [int(message.payload) for message in receiver.expect(100)] == list(range(100))
