"""Packets that the mesh's own encoder cannot write."""

from __future__ import annotations


def text(data: bytes) -> bytes:
    """A string of any bytes, behind its length."""
    return len(data).to_bytes(2, "big") + data


def packet(first: int, body: bytes) -> bytes:
    """A packet with this first byte; its body has 127 bytes at most."""
    assert len(body) < 128
    return bytes((first, len(body))) + body


def no_properties(protocol: int) -> bytes:
    """An empty list of properties, where the version has one."""
    return b"\x00" if protocol == 5 else b""


def publish(topic: bytes, protocol: int, first: int = 0x30, identifier: bytes = b"", properties: bytes = b"") -> bytes:
    """A PUBLISH without payload."""
    listed = bytes((len(properties),)) + properties if protocol == 5 else b""
    return packet(first, text(topic) + identifier + listed)


def subscribe(filter: bytes, protocol: int, options: int = 0, first: int = 0x82) -> bytes:
    """A SUBSCRIBE with one filter."""
    return packet(first, b"\x00\x07" + no_properties(protocol) + text(filter) + bytes((options,)))


def unsubscribe(filter: bytes, protocol: int, first: int = 0xA2) -> bytes:
    """An UNSUBSCRIBE with one filter."""
    return packet(first, b"\x00\x07" + no_properties(protocol) + text(filter))


def connect(
    protocol: int,
    flags: int = 0x02,
    client_id: bytes = b"raw",
    rest: bytes = b"",
    name: bytes = b"",
    level: int = 0,
    properties: bytes = b"",
) -> bytes:
    """A CONNECT with these parts; ``rest`` follows the client identifier."""
    named = text(name or (b"MQIsdp" if protocol == 3 else b"MQTT"))
    listed = bytes((len(properties),)) + properties if protocol == 5 else b""
    head = named + bytes((level or protocol, flags)) + b"\x00\x3c" + listed
    return packet(0x10, head + text(client_id) + rest)
