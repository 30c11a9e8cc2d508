"""Topic aliases of raw PUBLISH packets: the resolved packet has the same meaning without an alias."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.wire.aliases import AliasTable
from mesh.wire.decode import SERVER, PacketLimits, Reader
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, Publish
from mesh.wire.properties import Properties


def aliased(topic: str, alias: int | None, qos: int = 1, size: int = 3) -> Publish:
    properties = Properties()
    properties.topic_alias = alias
    properties.content_type = "text"
    properties.message_expiry = 7
    properties.correlation_data = b"data"
    properties.payload_format = 1
    properties.user = [("a", "b"), ("a", "c")]
    return Publish(topic, b"x" * size, qos, False, False, 9 if qos else 0, properties)


def read(raw: bytes) -> Publish:
    (packet,) = Reader(PacketLimits(), SERVER, MQTT5).feed(raw)
    assert isinstance(packet, Publish)
    return packet


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("size", [0, 3, 100, 200, 20_000])
def test_alias_is_replaced_by_its_topic(qos: int, size: int) -> None:
    table = AliasTable(5)
    for topic in ("a/b", ""):
        packet = aliased(topic, 5, qos, size)
        plain = read(table.plain(encode(packet, MQTT5)))
        assert plain == aliased("a/b", None, qos, size)


def test_alias_can_be_set_to_another_topic() -> None:
    table = AliasTable(1)
    table.plain(encode(aliased("a", 1), MQTT5))
    table.plain(encode(aliased("b", 1), MQTT5))
    assert read(table.plain(encode(aliased("", 1), MQTT5))).topic == "b"


@pytest.mark.parametrize(("topic", "alias"), [("a", None), ("a", 6), ("", 4)])
def test_publish_without_a_resolvable_alias_is_unchanged(topic: str, alias: int | None) -> None:
    raw = encode(aliased(topic or "x", alias), MQTT5) if topic else encode(aliased("", alias), MQTT5)
    assert AliasTable(5).plain(raw) == raw


def test_publish_with_alias_0_or_two_aliases_is_unchanged() -> None:
    for properties in (b"\x23\x00\x00", b"\x23\x00\x01\x23\x00\x01"):
        body = b"\x00\x01a" + bytes((len(properties),)) + properties + b"x"
        raw = bytes((0x30, len(body))) + body
        assert AliasTable(5).plain(raw) == raw


def test_growth_in_bytes_is_counted() -> None:
    table = AliasTable(1)
    table.plain(encode(aliased("t" * 500, 1), MQTT5))
    assert table.grown == 0
    table.plain(encode(aliased("", 1), MQTT5))
    assert 490 <= table.grown <= 500


@given(st.binary(max_size=60), st.integers(0x30, 0x3F), st.booleans())
def test_random_bytes_are_unchanged_or_lose_one_alias(body: bytes, first: int, framed: bool) -> None:
    raw = bytes((first, len(body))) + body if framed else bytes((first,)) + body
    plain = AliasTable(9).plain(raw)
    assert plain == raw or len(plain) == len(raw) - 3


@given(st.binary(max_size=40))
def test_random_properties_keep_the_meaning_of_a_publish(properties: bytes) -> None:
    body = b"\x00\x01a" + bytes((len(properties),)) + properties
    raw = bytes((0x30, len(body))) + body
    before = Reader(PacketLimits(), SERVER, MQTT5)
    packets = before.feed(raw)
    after = Reader(PacketLimits(), SERVER, MQTT5)
    plain = after.feed(AliasTable(9).plain(raw))
    assert (before.error is None) == (after.error is None)
    for one, other in zip(packets, plain, strict=True):
        assert isinstance(one, Publish)
        assert isinstance(other, Publish)
        assert (one.topic, one.payload) == (other.topic, other.payload)


def test_size_is_that_of_the_topics_that_are_kept() -> None:
    table = AliasTable(5)
    steps = (("a/b", 1, 3), ("a/b", 1, 3), ("c", 2, 4), ("long/topic", 1, 11), ("", 1, 11), ("x", 9, 11))
    for topic, alias, size in steps:
        table.plain(encode(aliased(topic, alias), MQTT5))
        assert table.size == size
