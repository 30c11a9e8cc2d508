"""Keep alive, pings, and connections without CONNECT (MQTT 5.0 and 3.1.1 sections 3.1.2.10, 3.12, 3.13)."""

from __future__ import annotations

from mesh.wire.packets import PINGREQ, PINGRESP, Disconnect, Ping, Publish
from tests.conformance.clients import PROTOCOLS, watch, will
from tests.conformance.world import World
from tests.support.shows import shows


@shows(v5="3.12.4-1", v3="3.12.4-1")
@PROTOCOLS
def test_every_pingreq_is_answered(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol, keep_alive=30)
    before = len(peer.received)
    peer.send(Ping(PINGREQ), Ping(PINGREQ))
    assert [peer.expect(Ping).type for _ in range(2)] == [PINGRESP, PINGRESP]
    assert peer.received[before:] == b"\xd0\x00\xd0\x00"


@PROTOCOLS
def test_pingreq_with_a_body_is_malformed(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(b"\xc0\x01\x00")
    peer.expect_end(0x81)


@shows(v5="3.1.2-22 3.1.2-8 3.1.2-20", v3="3.1.2-24 3.1.2-8 3.1.2-23")
def test_silent_client_is_disconnected(way: World) -> None:
    """As after a network failure: the will is published, the session stays. Messages to the client do not count."""
    watcher, topic = watch(way)
    silent = [
        way.client(protocol=protocol, clean=False, expiry=60 if protocol == 5 else None, keep_alive=1, will=will(topic))
        for protocol in (3, 4, 5)
    ]
    silent[2].subscribe(topic, qos=0)
    unlimited = way.client(protocol=4, keep_alive=0)
    for peer in silent[:2]:
        assert peer.expect_close() == []
    last = silent[2].expect_close()[-1]
    assert isinstance(last, Disconnect)
    assert last.reason == 0x8D
    assert watcher.messages(3) == [b"will"] * 3
    for peer in silent:
        assert way.client(peer.client_id, peer.protocol, clean=False).connack.session_present or peer.protocol == 3
    unlimited.alive()


@shows(v5="3.1.2-22", v3="3.1.2-24")
def test_any_packet_resets_the_keep_alive(way: World) -> None:
    """Each pause is shorter than 1.5 times the keep alive; their sum is longer."""
    peers = [way.client(protocol=protocol, keep_alive=2) for protocol in (4, 5)]
    for packet in (Publish("t", b""), Ping(PINGREQ), Publish("t", b"")):
        way.elapse(1.3)
        for peer in peers:
            peer.send(packet)
    for peer in peers:
        peer.expect(Ping)
        peer.expect_nothing()


def test_connection_without_connect_is_closed(way: World) -> None:
    """Neither silence nor a part of a CONNECT keeps a connection open."""
    peers = []
    for beginning in (b"", b"\x10", b"\x10\x10\x00\x04MQTT\x05"):
        peers.append(way.peer())
        peers[-1].send(beginning)
    for peer in peers:
        assert peer.expect_close() == []
