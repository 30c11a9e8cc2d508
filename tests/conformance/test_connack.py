"""CONNACK: Session Present, and the limits and features that the server announces (MQTT 5.0 section 3.2)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import Connack, Connect
from mesh.wire.properties import Properties
from tests.conformance.clients import PROTOCOLS
from tests.conformance.peer import Peer
from tests.conformance.world import ALIASES, KEEP_ALIVE, MAX_PACKET, RECEIVE_MAXIMUM, SESSION_EXPIRY, World
from tests.support.shows import shows


def told(peer: Peer) -> Properties:
    """The properties of a CONNACK."""
    return peer.connack.properties or Properties()


@shows(
    v5="3.1.2-4 3.1.2-5 3.1.2-6 3.1.4-4 3.2.2-2 3.2.2-3 3.1.2-23",
    v3="3.1.2-4 3.1.2-6 3.1.4-3 3.2.2-1 3.2.2-2 3.2.2-3",
)
@pytest.mark.parametrize("protocol", [4, 5])
def test_session_present_tells_whether_a_session_exists(world: World, protocol: int) -> None:
    expiry = 60 if protocol == 5 else None
    first = world.client(protocol=protocol, clean=False, expiry=expiry)
    assert not first.connack.session_present
    topic = world.topic()
    first.subscribe(topic)
    first.leave()
    second = world.client(first.client_id, protocol, clean=False, expiry=expiry)
    assert second.connack.session_present
    second.publish(topic)
    assert second.message().topic == topic
    second.leave()
    third = world.client(first.client_id, protocol, clean=True, expiry=expiry)
    assert not third.connack.session_present
    third.publish(topic)
    third.expect_nothing()


@shows(v5="3.2.2-1")
def test_connack_of_3_1_has_no_session_present(world: World) -> None:
    first = world.client(protocol=3, clean=False)
    first.leave()
    second = world.client(first.client_id, 3, clean=False)
    assert second.received[:4] == b"\x20\x02\x00\x00"


def test_connack_announces_the_servers_limits(world: World) -> None:
    told_ = told(world.client())
    assert told_.receive_maximum == RECEIVE_MAXIMUM
    assert told_.maximum_packet_size == MAX_PACKET
    assert told_.topic_alias_maximum == ALIASES
    for name in ("retain_available", "wildcard_available", "subscription_id_available", "shared_available"):
        assert getattr(told_, name) in (None, 1)  # absent means available
    assert told_.maximum_qos is None


@shows(v5="3.2.2-9 3.2.2-10 3.2.2-12 3.2.2-13", v3="3.8.3-2")
@PROTOCOLS
def test_server_supports_every_optional_feature(world: World, protocol: int) -> None:
    """All QoS, retained messages and wildcards: statements about a server without them do not apply."""
    peer = world.client(protocol=protocol)
    topic = world.topic("x")
    assert peer.subscribe(topic.replace("/x", "/+"), qos=2) == [2]
    for qos in range(3):
        peer.publish(topic, b"%d" % qos, qos, retain=True)
        message = peer.message()
        assert (message.payload, message.qos) == (b"%d" % qos, qos)
    assert peer.subscribe(topic.replace("/x", "/#"), qos=2) == [2]
    assert peer.message().retain


def test_longer_session_expiry_is_reduced_and_announced(world: World) -> None:
    assert told(world.client(expiry=SESSION_EXPIRY + 1)).session_expiry == SESSION_EXPIRY
    assert told(world.client(expiry=0xFFFFFFFF)).session_expiry == SESSION_EXPIRY
    assert told(world.client(expiry=SESSION_EXPIRY)).session_expiry is None


@shows(v5="3.2.2-22")
def test_longer_keep_alive_is_reduced_and_announced(world: World) -> None:
    assert told(world.client(keep_alive=KEEP_ALIVE + 1)).server_keep_alive == KEEP_ALIVE
    assert told(world.client(keep_alive=0)).server_keep_alive == KEEP_ALIVE
    assert told(world.client(keep_alive=KEEP_ALIVE)).server_keep_alive is None


@shows(v5="3.1.2-28")
def test_response_information_is_sent_on_request_only(world: World) -> None:
    assert told(world.client()).response_info is None
    assert told(world.client(request_response_info=0)).response_info is None
    peer = world.client(request_response_info=1)
    prefix = told(peer).response_info
    assert prefix
    assert peer.client_id in prefix
    assert peer.subscribe(f"{prefix}/#") == [2]
    assert peer.publish(f"{prefix}/1", b"answer") == 0
    assert peer.message().payload == b"answer"


@shows(v5="3.2.2-19 3.2.2-20 3.1.2-24")
@pytest.mark.parametrize("size", [1, 4, 5, 12])
def test_connack_above_the_clients_packet_size_is_not_sent(world: World, size: int) -> None:
    peer = world.peer()
    asked = Properties()
    asked.maximum_packet_size = size
    peer.send(Connect(5, world.client_id(), properties=asked))
    packets = peer.expect_close()
    assert packets == []


@shows(v5="3.2.2-8")
def test_refusal_has_a_reason_code_of_connack(world: World) -> None:
    peer = world.peer()
    peer.send(b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x00")
    assert peer.expect(Connack).reason == 0x81
    assert peer.expect_close() == []
