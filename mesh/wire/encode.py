"""Packets to bytes.

It knows the layout of every packet in 3.1, 3.1.1 and 5.0. It must never know why a packet is sent. What always holds:
``decode`` can read the bytes back; a value that does not fit its field raises ``ValueError`` and is never truncated.
Properties and reason codes that a version does not have are left out.
"""

from __future__ import annotations

from typing import Final

from mesh.wire.fields import BYTE, length_size, write_binary, write_length, write_one, write_text, write_two
from mesh.wire.packets import (
    AUTH,
    CONNACK,
    CONNECT,
    DISCONNECT,
    MQTT5,
    MQTT31,
    PUBACK,
    PUBCOMP,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from mesh.wire.properties import Properties
from mesh.wire.property_codec import encode_properties
from mesh.wire.reasons import SUCCESS, UNSPECIFIED_ERROR

__all__ = ["encode", "encode_ack", "encode_properties", "encode_publish"]


def _ack_heads() -> list[list[bytes]]:
    """The first three bytes of the short form, for each acknowledgement and each high byte of an identifier."""
    heads: list[list[bytes]] = []
    for kind in range(PUBACK, PUBCOMP + 1):
        first = kind << 4 | (2 if kind == PUBREL else 0)  # [MQTT-3.6.1-1]
        heads.append([bytes((first, 2, high)) for high in range(256)])
    return heads


_ACK_HEADS: Final[list[list[bytes]]] = _ack_heads()


def encode(packet: Packet, protocol: int) -> bytes:
    """The bytes of a packet for version 3, 4 or 5. A CONNECT is encoded for its own version."""
    if isinstance(packet, Publish):
        return _publish(packet, protocol)
    if isinstance(packet, Ack):
        return _ack(packet, protocol)
    if isinstance(packet, Ping):
        return bytes((packet.type << 4, 0))
    if isinstance(packet, SubAck):
        return _suback(packet, protocol)
    if isinstance(packet, Subscribe):
        return _subscribe(packet, protocol)
    if isinstance(packet, Unsubscribe):
        return _unsubscribe(packet, protocol)
    if isinstance(packet, Disconnect):
        return _short(DISCONNECT, packet.reason, packet.properties, protocol)
    if isinstance(packet, Connack):
        return _connack(packet, protocol)
    if isinstance(packet, Connect):
        return _connect(packet)
    if protocol != MQTT5:
        raise ValueError("AUTH exists in MQTT 5 only")
    return _auth(packet)


def encode_publish(
    topic: bytes, payload: bytes, qos: int, retain: bool, dup: bool, packet_id: int, properties: bytes, protocol: int
) -> bytes:
    """A PUBLISH, from a topic in UTF-8 and encoded properties (without their length; empty for none).

    ``packet_id`` is ignored for QoS 0, ``properties`` before 5.0. ``ValueError`` if the packet exceeds the maximum
    length of MQTT.
    """
    topic_size = len(topic)
    if topic_size > 0xFFFF:
        raise ValueError(f"a topic name has at most 65535 bytes, not {topic_size}")
    first = 0x30 | qos << 1
    if retain:
        first |= 0x01
    if dup:
        first |= 0x08
    length = 2 + topic_size + len(payload)
    tail = b""
    if qos:
        length += 2
        tail = packet_id.to_bytes(2, "big")
    if protocol == MQTT5:
        size = len(properties)
        if size == 0:
            length += 1
            tail += b"\x00"
        else:
            length += length_size(size) + size
            tail += write_length(size) + properties
    # Fixed header and topic length are one number: one object instead of four or five.
    if length < 0x80:
        head = (first << 24 | length << 16 | topic_size).to_bytes(4, "big")
    elif length < 0x4000:
        head = (first << 32 | (length & 0x7F | 0x80) << 24 | length >> 7 << 16 | topic_size).to_bytes(5, "big")
    else:
        head = BYTE[first] + write_length(length) + topic_size.to_bytes(2, "big")
    return head + topic + tail + payload


def encode_ack(type: int, packet_id: int, reason: int, protocol: int) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP without properties; the reason code is left out for success and before 5.0."""
    if reason == SUCCESS or protocol != MQTT5:
        return _ACK_HEADS[type - PUBACK][packet_id >> 8] + BYTE[packet_id & 0xFF]
    first = type << 4 | (2 if type == PUBREL else 0)
    return bytes((first, 3, packet_id >> 8, packet_id & 0xFF, reason))


def _framed(first: int, body: bytes) -> bytes:
    return BYTE[first] + write_length(len(body)) + body


def _listed(properties: Properties | None) -> bytes:
    """The properties with their length."""
    if properties is None:
        return b"\x00"
    encoded = encode_properties(properties)
    return write_length(len(encoded)) + encoded


def _publish(packet: Publish, protocol: int) -> bytes:
    topic = packet.topic.encode("utf-8")
    if not 0 <= packet.qos <= 2:
        raise ValueError(f"the QoS must be 0, 1 or 2, not {packet.qos}")
    if packet.qos and not 1 <= packet.packet_id <= 0xFFFF:
        raise ValueError(f"a packet identifier must be 1 to 65535, not {packet.packet_id}")
    properties = b"" if packet.properties is None else encode_properties(packet.properties)
    return encode_publish(
        topic, packet.payload, packet.qos, packet.retain, packet.dup, packet.packet_id, properties, protocol
    )


def _ack(packet: Ack, protocol: int) -> bytes:
    if protocol != MQTT5 or packet.properties is None:
        return encode_ack(packet.type, packet.packet_id, packet.reason, protocol)
    body = write_two(packet.packet_id) + write_one(packet.reason) + _listed(packet.properties)
    return _framed(packet.type << 4 | (2 if packet.type == PUBREL else 0), body)


def _suback(packet: SubAck, protocol: int) -> bytes:
    body = write_two(packet.packet_id)
    if protocol == MQTT5:
        body += _listed(packet.properties) + bytes(packet.reasons)
    elif packet.type == SUBACK:
        # 3.1.1 has one failure code (its section 3.9.3); 3.1 has none, but its clients know this one.
        body += bytes([min(reason, UNSPECIFIED_ERROR) for reason in packet.reasons])
    return _framed(packet.type << 4, body)


def _subscribe(packet: Subscribe, protocol: int) -> bytes:
    parts = [write_two(packet.packet_id)]
    if protocol == MQTT5:
        parts.append(_listed(packet.properties))
    for subscription in packet.subscriptions:
        parts.append(write_text(subscription.filter))
        parts.append(BYTE[subscription.qos if protocol != MQTT5 else _options(subscription)])
    return _framed(SUBSCRIBE << 4 | 2, b"".join(parts))  # [MQTT-3.8.1-1]


def _options(subscription: Subscription) -> int:
    """The subscription options byte, section 3.8.3.1."""
    options = subscription.qos | subscription.retain_handling << 4
    if subscription.no_local:
        options |= 0x04
    if subscription.retain_as_published:
        options |= 0x08
    return options


def _unsubscribe(packet: Unsubscribe, protocol: int) -> bytes:
    parts = [write_two(packet.packet_id)]
    if protocol == MQTT5:
        parts.append(_listed(packet.properties))
    for filter in packet.filters:
        parts.append(write_text(filter))
    return _framed(UNSUBSCRIBE << 4 | 2, b"".join(parts))  # [MQTT-3.10.1-1]


def _short(kind: int, reason: int, properties: Properties | None, protocol: int) -> bytes:
    """DISCONNECT: the body is left out for success without properties."""
    if protocol != MQTT5 or (reason == SUCCESS and properties is None):
        return bytes((kind << 4, 0))
    return _framed(kind << 4, write_one(reason) + (b"" if properties is None else _listed(properties)))


def _auth(packet: Auth) -> bytes:
    if packet.reason == SUCCESS and packet.properties is None:
        return bytes((AUTH << 4, 0))
    return _framed(AUTH << 4, write_one(packet.reason) + _listed(packet.properties))


def _connack(packet: Connack, protocol: int) -> bytes:
    present = packet.session_present and protocol != MQTT31  # a reserved byte in 3.1
    body = BYTE[1 if present else 0] + write_one(packet.reason)
    return _framed(CONNACK << 4, body + _listed(packet.properties) if protocol == MQTT5 else body)


def _connect(packet: Connect) -> bytes:
    will = packet.will
    flags = 0x02 if packet.clean_start else 0
    if will is not None:
        flags |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
    if packet.username is not None:
        flags |= 0x80
    if packet.password is not None:
        flags |= 0x40
    name = "MQIsdp" if packet.protocol == MQTT31 else "MQTT"
    parts = [write_text(name), write_one(packet.protocol), BYTE[flags], write_two(packet.keep_alive)]
    if packet.protocol == MQTT5:
        parts.append(_listed(packet.properties))
    parts.append(write_text(packet.client_id))
    if will is not None:
        parts.append(_will(will, packet.protocol))
    if packet.username is not None:
        parts.append(write_text(packet.username))
    if packet.password is not None:
        parts.append(write_binary(packet.password))
    return _framed(CONNECT << 4, b"".join(parts))


def _will(will: Will, protocol: int) -> bytes:
    properties = _listed(will.properties) if protocol == MQTT5 else b""
    return properties + write_text(will.topic) + write_binary(will.payload)
