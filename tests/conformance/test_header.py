"""Fixed headers, packet identifiers and property lists (MQTT 5.0 chapter 2, MQTT 3.1.1 chapter 2)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, Ack, Publish, SubAck, Subscribe, Subscription, Unsubscribe
from tests.conformance import raw
from tests.conformance.clients import PROTOCOLS
from tests.conformance.world import World
from tests.support.shows import shows

MODERN = pytest.mark.parametrize("protocol", [4, 5])  # 3.1 uses these bits differently


@shows(v5="2.1.3-1 3.6.1-1 3.8.1-1 3.10.1-1 3.14.1-1", v3="2.2.2-1 2.2.2-2 3.6.1-1 3.8.1-1 3.10.1-1 3.14.1-1")
@MODERN
@pytest.mark.parametrize(
    "packet",
    [
        b"\x41\x02\x00\x01", b"\x58\x02\x00\x01", b"\x60\x02\x00\x01", b"\x66\x02\x00\x01",
        b"\x72\x02\x00\x01", b"\xc1\x00", b"\xe4\x00",
    ],
)  # fmt: skip
def test_wrong_reserved_flags_end_connection(world: World, protocol: int, packet: bytes) -> None:
    peer = world.client(protocol=protocol)
    peer.send(packet)
    peer.expect_end(0x81)


@shows(v5="3.8.1-1 3.10.1-1", v3="3.8.1-1 3.10.1-1")
@MODERN
@pytest.mark.parametrize("flags", [0x00, 0x03, 0x0A])
def test_wrong_flags_of_subscribe_or_unsubscribe_end_connection(world: World, protocol: int, flags: int) -> None:
    for packet in (raw.subscribe(b"a", protocol, first=0x80 | flags), raw.unsubscribe(b"a", protocol, 0xA0 | flags)):
        peer = world.client(protocol=protocol)
        peer.send(packet)
        peer.expect_end(0x81)


@shows(v5="3.3.1-4 4.3.1-1", v3="3.3.1-4")
@PROTOCOLS
def test_publish_with_qos_3_ends_connection(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(raw.publish(b"a", protocol, 0x36, b"\x00\x01"))
    peer.expect_end(0x81)


@shows(v5="3.3.1-2", v3="3.3.1-2")
@MODERN
def test_dup_with_qos_0_ends_connection(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(raw.publish(b"a", protocol, 0x38))
    peer.expect_end(0x81)


@PROTOCOLS
@pytest.mark.parametrize("first", [0x00, 0x20, 0x90, 0xB0, 0xD0])
def test_packet_type_of_the_server_is_a_protocol_error(world: World, protocol: int, first: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(bytes((first, 2, 0, 1)))
    peer.expect_end(0x81 if first == 0 else 0x82)


@shows(v5="2.2.1-3 2.2.1-2", v3="2.3.1-1 2.3.1-5")
@PROTOCOLS
def test_packet_identifier_0_ends_connection(world: World, protocol: int) -> None:
    zero = b"\x00\x00" + raw.no_properties(protocol)
    for packet in (
        raw.publish(b"a", protocol, 0x32, b"\x00\x00"),
        raw.publish(b"a", protocol, 0x34, b"\x00\x00"),
        raw.packet(0x82, zero + raw.text(b"a") + b"\x00"),
        raw.packet(0xA2, zero + raw.text(b"a")),
        b"\x40\x02\x00\x00",
    ):
        peer = world.client(protocol=protocol)
        peer.send(packet)
        peer.expect_end(0x82)


@shows(v5="2.2.1-5 2.2.1-6 3.8.4-2 4.3.2-4 4.3.3-8 4.3.3-11", v3="2.3.1-6 2.3.1-7 3.8.4-2")
@PROTOCOLS
@pytest.mark.parametrize("identifier", [1, 255, 256, 40_000, 65_535])
def test_answers_repeat_the_packet_identifier(world: World, protocol: int, identifier: int) -> None:
    peer = world.client(protocol=protocol)
    topic = world.topic()
    peer.send(Publish(topic, b"", 1, False, False, identifier))
    answer = peer.expect(Ack)
    assert (answer.type, answer.packet_id) == (PUBACK, identifier)
    peer.send(Publish(topic, b"", 2, False, False, identifier))
    answer = peer.expect(Ack)
    assert (answer.type, answer.packet_id) == (PUBREC, identifier)
    peer.send(raw.packet(0x62, identifier.to_bytes(2, "big")))
    answer = peer.expect(Ack)
    assert (answer.type, answer.packet_id) == (PUBCOMP, identifier)
    peer.send(Subscribe(identifier, [Subscription(topic)]))
    assert peer.expect(SubAck).packet_id == identifier
    peer.send(Unsubscribe(identifier, [topic]))
    assert peer.expect(SubAck).packet_id == identifier


@shows(v5="2.2.1-2 2.2.1-4 4.3.2-1 4.3.2-2 4.3.3-1 4.3.3-2 4.3.1-1", v3="2.3.1-4 2.3.1-5 4.3.1-1")
@PROTOCOLS
def test_deliveries_have_unused_packet_identifiers(world: World, protocol: int) -> None:
    receiver, sender = world.client(protocol=protocol), world.client(protocol=protocol)
    topic = world.topic()
    receiver.subscribe(topic)
    for number in range(9):
        sender.publish(topic, b"%d" % number, number % 3)
    got = [receiver.find(Publish) for _ in range(9)]
    assert [message.qos for message in got] == [0, 1, 2] * 3
    assert not any(message.dup for message in got)
    assert [message.packet_id for message in got if message.qos == 0] == [0, 0, 0]
    used = [message.packet_id for message in got if message.qos]
    assert len(set(used)) == len(used)
    assert 0 not in used


@shows(v5="2.2.2-1")
def test_packets_without_properties_have_property_length_0(world: World) -> None:
    """SUBACK, UNSUBACK and PUBLISH may not omit the property length."""
    peer = world.client()
    topic = world.topic("x")
    peer.subscribe(topic, qos=1)
    peer.publish(topic, b"payload", 0)
    peer.message()
    peer.unsubscribe(topic)
    at = peer.received.index(b"\x90\x04")
    assert peer.received[at + 4] == 0
    at = peer.received.index(topic.encode())
    assert peer.received[at + len(topic) : at + len(topic) + 8] == b"\x00payload"
    at = peer.received.rindex(b"\xb0\x04")
    assert peer.received[at + 4] == 0


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        (b"\x7f\x00", 0x81),  # no such property
        (b"\x11\x00\x00\x00\x01", 0x81),  # session expiry, which belongs to CONNECT
        (b"\x01\x00\x01\x01", 0x82),  # the payload format twice
        (b"\x01\x02", 0x82),  # a payload format of 2
        (b"\x02\x00\x00", 0x81),  # an expiry of two bytes
        (b"\x0b\x01", 0x82),  # a subscription identifier from a client
    ],
)
@shows(v5="3.3.4-6 4.13.1-1")
def test_publish_with_wrong_properties_ends_connection(world: World, properties: bytes, reason: int) -> None:
    peer = world.client()
    peer.send(raw.publish(b"a", 5, properties=properties))
    peer.expect_end(reason)


@shows(v5="4.13.1-1 4.13.2-1 3.14.4-2 3.14.4-1", v3="4.8.0-1")
@PROTOCOLS
def test_packets_after_a_malformed_one_are_ignored(world: World, protocol: int) -> None:
    watcher, peer = world.client(protocol=protocol), world.client(protocol=protocol)
    topic = world.topic()
    watcher.subscribe(topic)
    peer.send(raw.publish(topic.encode(), protocol), b"\x36\x00", raw.publish(topic.encode(), protocol))
    peer.expect_end(0x81)
    assert watcher.message().topic == topic
    watcher.expect_nothing()
