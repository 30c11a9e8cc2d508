"""Strings (MQTT 5.0 section 1.5.4, MQTT 3.1.1 section 1.5.3): malformed UTF-8 ends the connection."""

from __future__ import annotations

import pytest

from mesh.wire.packets import Connack
from tests.conformance import raw
from tests.conformance.clients import PROTOCOLS
from tests.conformance.world import World, properties
from tests.support.shows import shows

BROKEN = pytest.mark.parametrize(
    "text",
    [
        b"a\xff", b"a\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf8\x88\x80\x80\x80",
        b"a\xed\xa0\x80\xed\xb0\x80",
    ],
)  # fmt: skip


@shows(v5="1.5.4-1 3.3.2-1 4.13.1-1", v3="1.5.3-1 3.3.2-1 4.8.0-1")
@PROTOCOLS
@BROKEN
def test_topic_that_is_not_utf_8_ends_connection(world: World, protocol: int, text: bytes) -> None:
    peer = world.client(protocol=protocol)
    peer.send(raw.publish(text, protocol))
    peer.expect_end(0x81)


@shows(v5="1.5.4-1 3.8.3-1", v3="1.5.3-1 3.8.3-1")
@PROTOCOLS
@BROKEN
def test_filter_that_is_not_utf_8_ends_connection(world: World, protocol: int, text: bytes) -> None:
    peer = world.client(protocol=protocol)
    peer.send(raw.subscribe(text, protocol))
    peer.expect_end(0x81)


@shows(v5="3.10.3-1", v3="3.10.3-1")
@PROTOCOLS
def test_unsubscribe_filter_that_is_not_utf_8_ends_connection(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(raw.unsubscribe(b"a\xff", protocol))
    peer.expect_end(0x81)


@shows(v5="1.5.4-2 4.7.3-2", v3="1.5.3-2 4.7.3-2")
@PROTOCOLS
def test_string_with_u_0000_ends_connection(world: World, protocol: int) -> None:
    for packet in (raw.publish(b"a\0b", protocol), raw.subscribe(b"a\0b", protocol)):
        peer = world.client(protocol=protocol)
        peer.send(packet)
        peer.expect_end(0x81)


@shows(v5="1.5.7-1")
@pytest.mark.parametrize("pair", [(b"\xff", b"b"), (b"a", b"\xff"), (b"a\0", b"b"), (b"a", b"b\0")])
def test_user_property_that_is_not_utf_8_ends_connection(world: World, pair: tuple[bytes, bytes]) -> None:
    peer = world.client()
    peer.send(raw.publish(b"a", 5, properties=b"\x26" + raw.text(pair[0]) + raw.text(pair[1])))
    peer.expect_end(0x81)


@shows(v5="3.3.2-13 3.3.2-19")
@pytest.mark.parametrize("identifier", [0x08, 0x03])
def test_response_topic_or_content_type_not_utf_8_ends_connection(world: World, identifier: int) -> None:
    peer = world.client()
    peer.send(raw.publish(b"a", 5, properties=bytes((identifier,)) + raw.text(b"\xff")))
    peer.expect_end(0x81)


@shows(v5="1.5.4-3 4.7.3-4", v3="1.5.3-3 4.7.3-4")
@PROTOCOLS
def test_characters_are_never_removed_or_changed(world: World, protocol: int) -> None:
    """U+FEFF at the beginning, both encodings of ä, capital letters and spaces: each is a different topic."""
    receiver, sender = world.client(protocol=protocol), world.client(protocol=protocol)
    prefix = world.topic()
    levels = ("x", "\ufeffx", "X", "x ", "\u00e4", "a\u0308", "\u0041\u030a", "\u212b")
    topics = [f"{prefix}/{level}" for level in levels]
    for topic in topics:
        receiver.subscribe(topic, qos=1)
    for topic in topics:
        sender.publish(topic, topic.encode())
    got = [receiver.message() for _ in topics]
    assert [message.topic for message in got] == topics
    assert [message.payload.decode() for message in got] == topics
    receiver.expect_nothing()


@shows(v5="1.5.4-3", v3="1.5.3-3")
def test_topic_may_begin_with_u_feff(world: World) -> None:
    peer = world.client()
    topic = "\ufeff" + world.topic()
    peer.subscribe("#", qos=1)
    peer.publish(topic)
    message = peer.message()
    while message.topic[1:] != topic[1:]:
        message = peer.message()
    assert message.topic == topic


@shows(v5="3.1.3-4 3.1.3-12 3.1.4-1", v3="3.1.3-4 3.1.3-11 3.1.4-1")
@PROTOCOLS
@pytest.mark.parametrize("where", ["client id", "user name"])
def test_connect_with_a_malformed_string_is_refused(world: World, protocol: int, where: str) -> None:
    peer = world.peer(protocol)
    if where == "client id":
        peer.send(raw.connect(protocol, client_id=b"a\xff"))
    else:
        peer.send(raw.connect(protocol, flags=0x82, rest=raw.text(b"a\xff")))
    packets = peer.expect_close()
    assert packets == ([Connack(False, 0x81)] if protocol == 5 else [])


@shows(v5="3.1.3-11", v3="3.1.3-10")
@PROTOCOLS
@pytest.mark.parametrize("topic", [b"a\xff", b"", b"a/+", b"#", b"a\0"])
def test_will_with_a_wrong_topic_is_refused(world: World, protocol: int, topic: bytes) -> None:
    peer = world.peer(protocol)
    peer.send(raw.connect(protocol, 0x06, rest=raw.no_properties(protocol) + raw.text(topic) + raw.text(b"x")))
    packets = peer.expect_close()
    assert packets == ([Connack(False, 0x81)] if protocol == 5 else [])


@shows(v5="1.5.5-1")
@pytest.mark.parametrize("length", [b"\x80\x00", b"\x81\x80\x00", b"\x80\x80\x80\x00"])
def test_remaining_length_with_superfluous_bytes_ends_connection(world: World, length: bytes) -> None:
    peer = world.client()
    peer.send(b"\xc0" + length)
    peer.expect_end(0x81)


def test_remaining_length_of_five_bytes_ends_connection(world: World) -> None:
    peer = world.client()
    peer.send(b"\x30\xff\xff\xff\xff\x01")
    peer.expect_end(0x81)


@shows(v5="1.5.4-1 1.5.7-1")
def test_valid_strings_pass_unchanged(world: World) -> None:
    peer = world.client()
    topic = world.topic("\U0001f697/\u20ac")
    peer.subscribe(topic)
    pairs = [("\u00fc", "\U0010ffff"), ("", ""), ("\u00fc", "\ufffe")]
    peer.publish(topic, properties=properties(user=pairs))
    message = peer.message()
    assert message.topic == topic
    assert message.properties is not None
    assert message.properties.user == pairs
