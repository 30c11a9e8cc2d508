"""DISCONNECT in both directions; no packet follows it (MQTT 5.0 and 3.1.1 section 3.14)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import Disconnect, Publish
from tests.conformance.clients import PROTOCOLS, watch
from tests.conformance.peer import Peer
from tests.conformance.world import World, properties
from tests.support.shows import shows

WRONG = b"\x36\x00"  # a PUBLISH of QoS 3 without a topic: the server has a reason string for this error


def last_words(peer: Peer) -> Disconnect:
    """The DISCONNECT that ends a connection."""
    (packet,) = peer.expect_close()
    assert isinstance(packet, Disconnect)
    return packet


@shows(v5="3.14.4-1 3.14.4-2", v3="3.14.4-1 3.14.4-2")
@PROTOCOLS
def test_server_ignores_packets_after_disconnect(world: World, protocol: int) -> None:
    watcher, topic = watch(world)
    peer = world.client(protocol=protocol)
    peer.subscribe(topic)
    peer.send(Publish(topic, b"before"), Disconnect(), Publish(topic, b"after", 1, False, False, 1))
    packets = peer.expect_close()
    assert packets in ([], [Publish(topic, b"before")])
    assert watcher.message().payload == b"before"
    watcher.expect_nothing()


@shows(v5="3.14.2-1")
@pytest.mark.parametrize("reason", [0x01, 0x10, 0x87, 0x8B, 0x8E, 0x9C, 0xFF])
def test_disconnect_with_a_servers_reason_code_is_an_error(world: World, reason: int) -> None:
    peer = world.client()
    peer.send(bytes((0xE0, 2, reason, 0)))
    peer.expect_end(0x82)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x00\x05\x11\x00\x00\x00", 0x81),  # an expiry that is cut off
        (b"\x00\x0a\x11\x00\x00\x00\x01\x11\x00\x00\x00\x01", 0x82),  # twice
        (b"\x00\x03\x21\x00\x01", 0x81),  # a receive maximum
        (b"\x00\x02\x7e\x00", 0x81),  # no such property
        (b"\x00\x00\x00", 0x81),  # a byte too many
    ],
)
@shows(v5="4.13.1-1")
def test_disconnect_with_wrong_properties_ends_connection(world: World, body: bytes, reason: int) -> None:
    peer = world.client(expiry=60)
    peer.send(bytes((0xE0, len(body))) + body)
    peer.expect_end(reason)


@shows(v3="3.14.1-1")
def test_disconnect_with_a_body_is_an_error_before_5_0(world: World) -> None:
    watcher, topic = watch(world)
    peer = world.client(protocol=4)
    peer.send(b"\xe0\x01\x00", Publish(topic, b"after"))
    peer.expect_end(0x81)
    watcher.expect_nothing()


@shows(v5="3.14.2-2 3.14.2-1 3.14.4-2")
def test_disconnect_of_the_server_has_no_session_expiry(world: World) -> None:
    """Also if the client requested a longer session expiry than the server granted."""
    peer = world.client(expiry=0xFFFFFFFF)
    peer.send(WRONG)
    malformed = last_words(peer)
    first = world.client(peer.client_id, clean=False, expiry=0xFFFFFFFF)
    world.client(peer.client_id, clean=False, expiry=5)
    taken_over = last_words(first)
    assert (malformed.reason, taken_over.reason) == (0x81, 0x8E)
    for packet in (malformed, taken_over):
        assert packet.properties is None or packet.properties.session_expiry is None


@shows(v5="3.14.2-3 3.14.2-4 3.1.2-24")
def test_disconnect_omits_a_reason_string_that_does_not_fit(world: World) -> None:
    """A client with a larger maximum packet size gets the reason string."""
    free, tight = world.client(), world.client(maximum_packet_size=30)
    for peer in (free, tight):
        peer.send(WRONG)
    told = last_words(free).properties
    assert told is not None
    assert told.reason_string
    assert last_words(tight) == Disconnect(0x81)


@shows(v5="3.1.2-23 4.1.0-2")
@pytest.mark.parametrize("expiry", [0, 0xFFFFFFFF])
def test_disconnect_may_change_the_session_expiry(world: World, expiry: int) -> None:
    peer = world.client(expiry=60)
    peer.leave(properties=properties(session_expiry=expiry))
    assert world.client(peer.client_id, clean=False).connack.session_present == (expiry > 0)
