"""CONNECT and CONNACK, the will, and keep alive (MQTT 5.0 sections 3.1 and 3.2, MQTT 3.1.1 the same)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import Connect, Publish
from tests.conformance.shows import shows
from tests.conformance.world import World

PROTOCOLS = pytest.mark.parametrize("protocol", [3, 4, 5])


@shows(v5="3.1.0-2", v3="3.1.0-2")
@PROTOCOLS
def test_a_second_connect_is_a_protocol_error(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(Connect(protocol, peer.client_id))
    peer.expect_end(0x82)


@shows(v5="3.1.4-3 3.1.4-6", v3="3.1.4-2")
@PROTOCOLS
def test_a_client_with_the_same_identifier_takes_over(world: World, protocol: int) -> None:
    first = world.client(protocol=protocol)
    second = world.client(first.client_id, protocol)
    first.expect_end(0x8E)
    second.alive()


def test_messages_pass(world: World) -> None:
    receiver, sender = world.client(), world.client()
    topic = world.topic("a")
    receiver.subscribe(topic)
    for qos in range(3):
        sender.publish(topic, b"%d" % qos, qos)
    got = [receiver.message() for _ in range(3)]
    assert [(m.payload, m.qos) for m in got] == [(b"0", 0), (b"1", 1), (b"2", 2)]
    receiver.expect_nothing()
    assert isinstance(got[0], Publish)
