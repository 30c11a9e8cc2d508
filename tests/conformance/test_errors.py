"""Malformed packets and protocol errors end the connection, in 5.0 with a reason code (MQTT 5.0 section 4.13)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import Connack
from tests.conformance import raw
from tests.conformance.clients import PROTOCOLS, watch
from tests.conformance.world import QUEUE, World
from tests.support.shows import shows

# CONNECT


@shows(v5="3.1.4-1 4.13.1-1 4.13.2-1 3.2.2-7")
@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (b"\x7f\x00", 0x81),  # no such property
        (b"\x01\x00", 0x81),  # a payload format, which is for messages
        (b"\x12\x00\x01a", 0x81),  # a client identifier assigned by a client
        (b"\x18\x00\x00\x00\x01", 0x81),  # the will's delay in the wrong list
        (b"\x80\x01", 0x81),  # an identifier of two bytes
        (b"\x11\x00\x00\x00", 0x81),  # an expiry that is cut off
        (b"\x11\x00\x00\x00\x01\x11\x00\x00\x00\x01", 0x82),  # twice
        (b"\x21\x00\x01\x21\x00\x01", 0x82),
        (b"\x27\x00\x00\x10\x00\x27\x00\x00\x10\x00", 0x82),
        (b"\x17\x01\x17\x01", 0x82),
        (b"\x16\x00\x01a", 0x82),  # authentication data without a method
    ],
)
def test_connect_with_wrong_properties_is_refused(world: World, listed: bytes, reason: int) -> None:
    peer = world.peer()
    peer.send(raw.connect(5, properties=listed))
    assert peer.expect_close() == [Connack(False, reason)]


@shows(v5="3.1.4-1 3.1.2-9", v3="3.1.2-11")
@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        (b"\x11\x00\x00\x00\x01", 0x81),  # a session's expiry
        (b"\x23\x00\x01", 0x81),  # a topic alias
        (b"\x18\x00\x00\x00\x01\x18\x00\x00\x00\x01", 0x82),  # the delay twice
        (b"\x01\x02", 0x82),  # a payload format of 2
        (b"\x08\x00\x01#", 0x82),  # a response topic with a wildcard
    ],
)
def test_will_with_wrong_properties_is_refused(world: World, listed: bytes, reason: int) -> None:
    peer = world.peer()
    will = bytes((len(listed),)) + listed + raw.text(b"a") + raw.text(b"x")
    peer.send(raw.connect(5, 0x06, rest=will))
    assert peer.expect_close() == [Connack(False, reason)]


@shows(v5="3.1.2-9 3.1.3-3 3.1.4-1", v3="3.1.2-9 3.1.3-3 3.1.4-1")
@PROTOCOLS
def test_truncated_connect_is_refused(world: World, protocol: int) -> None:
    """Wherever the CONNECT is cut off after its version, the server refuses it and does nothing else."""
    whole = raw.connect(protocol, 0x06, rest=raw.no_properties(protocol) + raw.text(b"a") + raw.text(b"x"))
    after_level = 2 + len(raw.text(b"MQIsdp" if protocol == 3 else b"MQTT")) + 1
    for size in range(after_level, len(whole)):
        peer = world.peer(protocol)
        peer.send(bytes((0x10, size - 2)) + whole[2:size])
        assert peer.expect_close() == ([Connack(False, 0x81)] if protocol == 5 else [])
    peer = world.peer(protocol)
    peer.send(whole)
    assert peer.expect(Connack).reason == 0


@shows(v5="3.1.4-1 2.1.3-1", v3="3.1.4-1 2.2.2-2")
@pytest.mark.parametrize("protocol", [4, 5])
def test_connect_with_header_flags_closes_connection(world: World, protocol: int) -> None:
    peer = world.peer(protocol)
    peer.send(b"\x12" + raw.connect(protocol)[1:])
    assert peer.expect_close() == []


@shows(v5="3.1.4-6", v3="3.1.4-5")
@PROTOCOLS
def test_packets_after_a_malformed_connect_are_ignored(world: World, protocol: int) -> None:
    watcher, topic = watch(world)
    peer = world.peer(protocol)
    peer.send(raw.connect(protocol, 0x0A) + raw.publish(topic.encode(), protocol))
    assert peer.expect_close() == ([Connack(False, 0x81)] if protocol == 5 else [])
    watcher.expect_nothing()


# After CONNECT


@shows(v5="4.13.1-1 4.13.2-1 3.14.4-2", v3="4.8.0-1")
@PROTOCOLS
@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"\x30\x00", 0x81),  # without a topic
        (b"\x30\x03\x00\x05a", 0x81),  # a topic that is cut off
        (b"\x32\x03\x00\x01a", 0x81),  # QoS 1 without an identifier
        (b"\x40\x01\x01", 0x81),  # half an identifier
        (b"\x82\x01\x01", 0x81),
        (b"\xa2\x00", 0x81),
        (b"\xf1\x00", 0x81),  # AUTH, which older versions do not have, with wrong flags
    ],
)
def test_truncated_packet_ends_connection(world: World, protocol: int, packet: bytes, reason: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(packet)
    peer.expect_end(reason)


@shows(v5="4.13.1-1 4.12.0-7", v3="4.8.0-1")
@PROTOCOLS
@pytest.mark.parametrize("packet", [b"\xf0\x00", b"\xf0\x06\x18\x04\x15\x00\x01a", b"\xf0\x02\x18\x00"])
def test_auth_without_a_method_in_connect_is_an_error(world: World, protocol: int, packet: bytes) -> None:
    peer = world.client(protocol=protocol)
    peer.send(packet)
    peer.expect_end(0x82)


@shows(v5="4.13.1-1")
@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (raw.publish(b"", 5), 0x82),  # neither topic nor alias
        (raw.packet(0x82, b"\x00\x01\x02\x0b\x00" + raw.text(b"a") + b"\x00"), 0x82),  # subscription identifier 0
        (raw.packet(0x82, b"\x00\x01\x04\x0b\x01\x0b\x02" + raw.text(b"a") + b"\x00"), 0x82),  # two of them
        (raw.packet(0x82, b"\x00\x01\x02\x01\x00" + raw.text(b"a") + b"\x00"), 0x81),  # a payload format
        (raw.packet(0xA2, b"\x00\x01\x02\x0b\x01" + raw.text(b"a")), 0x81),  # a subscription identifier in UNSUBSCRIBE
        (raw.packet(0x82, b"\x00\x01\x7f" + raw.text(b"a") + b"\x00"), 0x81),  # a property list longer than the packet
        (b"\x40\x03\x00\x01\x01", 0x82),  # a reason code that PUBACK does not have
        (b"\x62\x03\x00\x01\x80", 0x82),
        (b"\x40\x06\x00\x01\x00\x02\x11\x00", 0x81),
    ],
)
def test_wrong_properties_and_reason_codes_end_connection(world: World, packet: bytes, reason: int) -> None:
    peer = world.client()
    peer.send(packet)
    peer.expect_end(reason)


@shows(v5="4.13.1-1", v3="4.8.0-1 4.8.0-2")
@PROTOCOLS
def test_error_of_one_client_does_not_affect_another(world: World, protocol: int) -> None:
    good, bad = world.client(protocol=protocol), world.client(protocol=protocol)
    bad.send(b"\x36\x00")
    bad.expect_end(0x81)
    good.alive()


@pytest.mark.parametrize("protocol", [4, 5])
def test_message_for_a_full_queue_is_refused_or_kept_elsewhere(world: World, protocol: int) -> None:
    """A receiver's queue is full. A 5.0 publisher gets a reason code. An older one has none: its message goes to the
    dead letters, and is acknowledged."""
    sleeper, topic = world.client(expiry=60), world.topic()
    sleeper.subscribe(topic)
    sleeper.leave()
    peer = world.client(protocol=protocol)
    for number in range(QUEUE):
        assert peer.publish(topic, b"%d" % number) == 0
    assert peer.publish(topic) == (world.full if protocol == 5 else 0)
    peer.alive()
    sleeper = world.client(sleeper.client_id, clean=False)
    assert sleeper.messages(QUEUE) == [b"%d" % number for number in range(QUEUE)]
    sleeper.expect_nothing()


# The stream of bytes


@shows(v5="4.2.0-1", v3="7.1.1-1")
@PROTOCOLS
@pytest.mark.parametrize("piece", [1, 2, 7, 100_000])
def test_packets_are_decoded_from_pieces_of_any_size(world: World, protocol: int, piece: int) -> None:
    watcher, topic = watch(world)
    peer = world.peer(protocol)
    packets = [raw.connect(protocol), *(raw.publish(topic.encode(), protocol) for _ in range(5)), b"\xc0\x00"]
    data = b"".join(packets)
    for start in range(0, len(data), piece):
        peer.send(data[start : start + piece])
    assert peer.expect(Connack).reason == 0
    peer.alive()
    assert [watcher.message().topic for _ in range(5)] == [topic] * 5
    watcher.expect_nothing()
