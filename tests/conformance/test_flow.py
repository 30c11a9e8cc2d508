"""Receive maximum in both directions (MQTT 5.0 sections 3.3.4 and 4.9), keep alive and pings."""

from __future__ import annotations

import time

import pytest

from mesh.wire.packets import PINGREQ, PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Ping, Publish, Will
from tests.conformance.shows import shows
from tests.conformance.test_connect import PROTOCOLS
from tests.conformance.world import CONNECT_TIMEOUT, IN_FLIGHT, KEEP_ALIVE, RECEIVE_MAXIMUM, World


@shows(v5="3.3.4-9 3.3.4-10 4.9.0-1 4.9.0-2 4.9.0-3")
@pytest.mark.parametrize("qos", [1, 2])
def test_no_more_is_with_the_client_than_it_takes(world: World, qos: int) -> None:
    receiver, sender = world.client(receive_maximum=3), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    for number in range(8):
        sender.publish(topic, b"%d" % number, qos)
    first = [receiver.find(Publish) for _ in range(3)]
    receiver.expect_nothing()
    receiver.alive()  # everything else goes on
    assert receiver.subscribe(world.topic()) == [2]
    sender.publish(topic, b"not held back", 0)
    assert receiver.publish(world.topic(), qos=1) == 0x10
    for message in first:
        receiver.acknowledge(message)
    rest = [receiver.message() for _ in range(6)]
    assert [message.payload for message in first + [one for one in rest if one.qos]] == [b"%d" % n for n in range(8)]


@shows(v5="4.9.0-2 4.9.0-1")
def test_a_place_is_free_when_the_exchange_is_over(world: World) -> None:
    receiver, sender = world.client(receive_maximum=1), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    sender.publish(topic, b"1", 2)
    sender.publish(topic, b"2", 1)
    first = receiver.expect(Publish)
    receiver.send(Ack(PUBREC, first.packet_id))
    assert receiver.expect(Ack).type == PUBREL
    receiver.expect_nothing()
    receiver.send(Ack(PUBCOMP, first.packet_id))
    assert receiver.expect(Publish).payload == b"2"


@PROTOCOLS
def test_the_server_has_a_limit_of_its_own(world: World, protocol: int) -> None:
    receiver, sender = world.client(protocol=protocol), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    for _ in range(IN_FLIGHT + 5):
        sender.publish(topic)
    got = [receiver.find(Publish) for _ in range(IN_FLIGHT)]
    receiver.expect_nothing()
    receiver.send(Ack(PUBACK, got[0].packet_id))
    receiver.find(Publish)


@shows(v5="3.3.4-7 4.13.1-1")
def test_a_client_that_exceeds_the_servers_maximum_is_closed(world: World) -> None:
    peer = world.client()
    topic = world.topic()
    peer.send(*[Publish(topic, b"", 2, False, False, number + 1) for number in range(RECEIVE_MAXIMUM)])
    for _ in range(RECEIVE_MAXIMUM):
        assert peer.expect(Ack).type == PUBREC
    peer.send(Publish(topic, b"", 2, False, False, RECEIVE_MAXIMUM + 1))
    peer.expect_end(0x93)


@shows(v5="4.9.0-3")
def test_one_that_only_reaches_it_is_not(world: World) -> None:
    peer = world.client()
    topic = world.topic()
    for _ in range(3):
        peer.send(*[Publish(topic, b"", 2, False, False, number + 1) for number in range(RECEIVE_MAXIMUM)])
        for number in range(RECEIVE_MAXIMUM):
            assert peer.expect(Ack).type == PUBREC
            peer.send(Ack(PUBREL, number + 1))
        for _ in range(RECEIVE_MAXIMUM):
            assert peer.expect(Ack).type == PUBCOMP
    peer.alive()


@shows(v5="3.12.4-1", v3="3.12.4-1")
@PROTOCOLS
def test_a_ping_is_answered(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(Ping(PINGREQ), Ping(PINGREQ))
    peer.expect(Ping)
    peer.expect(Ping)
    peer.expect_nothing()


@shows(v5="3.1.2-22 3.2.2-22", v3="3.1.2-24")
@PROTOCOLS
def test_a_silent_client_is_closed_as_if_its_network_had_failed(way: World, protocol: int) -> None:
    watcher = way.client()
    topic = way.topic()
    watcher.subscribe(topic)
    peer = way.client(protocol=protocol, keep_alive=1, will=Will(topic, b"silent"))
    began = time.monotonic()
    peer.expect_end(0x8D)
    assert time.monotonic() - began >= 1.0  # not before the keep alive itself has passed
    assert watcher.message().payload == b"silent"


@shows(v5="3.1.2-22", v3="3.1.2-24")
@PROTOCOLS
def test_one_that_says_something_is_not(way: World, protocol: int) -> None:
    peer = way.client(protocol=protocol, keep_alive=1)
    for _ in range(6):
        way.elapse(0.5)
        peer.alive()


def test_half_a_connect_is_not_waited_for(way: World) -> None:
    peer = way.peer()
    peer.send(b"\x10\x20\x00\x04MQTT")
    began = time.monotonic()
    assert peer.expect_close() == []
    assert time.monotonic() - began >= CONNECT_TIMEOUT / 2


def test_no_keep_alive_is_longer_than_the_servers(world: World) -> None:
    told = world.client(keep_alive=65_535).connack.properties
    assert told is not None
    assert told.server_keep_alive == KEEP_ALIVE
