"""CONNECT: what is accepted, what is refused and how, and session takeover (MQTT 5.0 and 3.1.1 section 3.1)."""

from __future__ import annotations

import string

import pytest

from mesh.wire.packets import Connack, Connect, Publish, Will
from tests.conformance import raw
from tests.conformance.clients import PROTOCOLS
from tests.conformance.world import World, properties
from tests.support.shows import shows


@shows(v5="3.1.0-1 3.1.4-2", v3="3.1.0-1")
@pytest.mark.parametrize("data", [b"\xc0\x00", b"\x30\x04\x00\x01ab", b"\xe0\x00", b"GET / HTTP", b"\xf0\x00"])
def test_first_packet_other_than_connect_closes_connection(world: World, data: bytes) -> None:
    peer = world.peer()
    peer.send(data)
    assert peer.expect_close() == []


@shows(v5="3.1.0-2 4.13.1-1", v3="3.1.0-2")
@PROTOCOLS
def test_second_connect_is_a_protocol_error(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(Connect(protocol, peer.client_id))
    peer.expect_end(0x82)


@shows(v5="3.1.2-1", v3="3.1.2-1")
@PROTOCOLS
@pytest.mark.parametrize("name", [b"MQTX", b"mqtt", b"MQISDP", b"M", b"HTTPHTTP"])
def test_unknown_protocol_name_is_refused(world: World, protocol: int, name: bytes) -> None:
    peer = world.peer(4)
    peer.send(raw.connect(4, name=name, level=protocol))
    assert peer.expect_close() == [Connack(False, 1)]


@shows(v5="3.1.2-2", v3="3.1.2-2")
@pytest.mark.parametrize("level", [0x01, 0x02, 0x03, 0x06, 0x7F, 0x84, 0xFF])
def test_unknown_protocol_version_is_refused_with_code_1(world: World, level: int) -> None:
    peer = world.peer(4)
    peer.send(raw.connect(4, level=level))
    assert peer.expect_close() == [Connack(False, 1)]


@shows(v5="3.1.2-3 3.1.4-1", v3="3.1.2-3 3.1.4-1")
@pytest.mark.parametrize("protocol", [4, 5])
def test_reserved_connect_flag_is_refused(world: World, protocol: int) -> None:
    peer = world.peer(protocol)
    peer.send(raw.connect(protocol, 0x03))
    assert peer.expect_close() == ([Connack(False, 0x81)] if protocol == 5 else [])


@shows(v5="3.1.2-11 3.1.2-12 3.1.2-13 3.1.4-1", v3="3.1.2-11 3.1.2-13 3.1.2-14 3.1.2-15 3.1.4-1 3.2.2-6")
@PROTOCOLS
@pytest.mark.parametrize("flags", [0x0A, 0x12, 0x22, 0x1E])
def test_wrong_will_flags_are_refused(world: World, protocol: int, flags: int) -> None:
    peer = world.peer(protocol)
    will = raw.no_properties(protocol) + raw.text(b"a") + raw.text(b"x") if flags & 0x04 else b""
    peer.send(raw.connect(protocol, flags, rest=will))
    assert peer.expect_close() == ([Connack(False, 0x81)] if protocol == 5 else [])


@shows(
    v5="3.1.2-16 3.1.2-17 3.1.2-18 3.1.2-19 3.1.3-1 3.1.3-3",
    v3="3.1.2-18 3.1.2-19 3.1.2-20 3.1.2-21 3.1.3-1 3.1.3-3",
)
@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(
    ("flags", "rest"),
    [
        (0x82, b""),  # a user name is announced
        (0xC2, raw.text(b"user")),  # and a password
        (0x02, raw.text(b"user")),  # none is announced
        (0x82, raw.text(b"user") + raw.text(b"password")),
        (0x06, raw.text(b"topic")),  # a will without a message
    ],
)
def test_payload_that_contradicts_the_flags_is_refused(world: World, protocol: int, flags: int, rest: bytes) -> None:
    peer = world.peer(protocol)
    peer.send(raw.connect(protocol, flags, rest=rest))
    assert peer.expect_close() == ([Connack(False, 0x81)] if protocol == 5 else [])


@shows(v3="3.1.2-22")
def test_password_without_user_name_is_refused_before_5_0(world: World) -> None:
    peer = world.peer(4)
    peer.send(raw.connect(4, 0x42, rest=raw.text(b"password")))
    assert peer.expect_close() == []


@shows(v5="3.1.4-5 3.2.2-1 3.2.2-2 3.2.0-2", v3="3.1.4-4 3.2.0-1 3.2.2-1")
@PROTOCOLS
def test_valid_connect_is_accepted(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    assert peer.connack.session_present is False
    assert peer.received[0] == 0x20
    assert peer.received[2:4] == b"\x00\x00"
    peer.expect_nothing()


@shows(v5="3.1.3-5", v3="3.1.3-5")
@PROTOCOLS
@pytest.mark.parametrize("client_id", ["0", string.ascii_lowercase[:23], string.ascii_uppercase[3:], "0123456789aZ"])
def test_client_id_of_letters_and_digits_is_accepted(world: World, protocol: int, client_id: str) -> None:
    world.client(client_id, protocol).leave()


@pytest.mark.parametrize("client_id", ["\u00fc", "a/b c+#", "x" * 300])
def test_client_id_of_other_characters_is_accepted(world: World, client_id: str) -> None:
    world.client(client_id).alive()


@shows(v5="3.1.3-6 3.1.3-7 3.2.2-16")
def test_client_without_client_id_gets_a_unique_one(world: World) -> None:
    names = set()
    for clean in (True, False, True):
        answer = world.client("", clean=clean, expiry=60).connack
        assert answer.properties is not None
        assert answer.properties.assigned_client_id
        names.add(answer.properties.assigned_client_id)
    assert len(names) == 3
    name = names.pop()
    again = world.client(name, clean=False, expiry=60)
    assert again.connack.session_present
    assert again.connack.properties is None or again.connack.properties.assigned_client_id is None


@shows(v3="3.1.3-6")
def test_client_of_3_1_1_may_omit_its_client_id(world: World) -> None:
    first, second = world.client("", 4), world.client("", 4)
    first.alive()
    second.alive()


@shows(v3="3.1.3-7 3.1.3-8 3.1.3-9 3.1.4-5 3.2.2-4 3.2.2-5")
@pytest.mark.parametrize("protocol", [3, 4])
def test_session_before_5_0_needs_a_client_id(world: World, protocol: int) -> None:
    """The server handles no packet after the refused CONNECT."""
    watcher = world.client()
    topic = world.topic()
    watcher.subscribe(topic)
    peer = world.peer(protocol)
    peer.send(raw.connect(protocol, 0x00, client_id=b""), Publish(topic, b"late"))
    assert peer.expect_close() == [Connack(False, 2)]
    watcher.expect_nothing()


@shows(v5="3.1.4-2 3.1.4-6 3.2.2-6 3.2.2-7 3.2.2-8 4.13.2-1")
def test_connect_with_a_refused_will_topic_is_refused(world: World) -> None:
    """The server handles no packet after the refused CONNECT."""
    watcher = world.client()
    topic = world.topic()
    watcher.subscribe(topic)
    peer = world.peer()
    will = Will("refused/will", b"x")
    peer.send(Connect(5, world.client_id(), True, 60, None, None, will), Publish(topic, b"late"))
    assert peer.expect_close() == [Connack(False, 0x87)]
    watcher.expect_nothing()


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("retain", [False, True])
def test_refused_will_is_dropped_before_5_0(world: World, protocol: int, retain: bool) -> None:
    """A client that cannot be told why would be refused for ever."""
    watcher = world.client()
    watcher.subscribe("#")
    peer = world.client(protocol=protocol, will=Will("refused/will", b"x", 1, retain))
    peer.alive()
    peer.lose()
    came = [packet.topic for packet in watcher.sync() if isinstance(packet, Publish)]
    assert not [topic for topic in came if topic.startswith("refused")]


@shows(v5="3.1.4-1 4.13.1-1")
def test_will_with_an_empty_response_topic_is_refused(world: World) -> None:
    peer = world.peer()
    will = Will(world.topic(), b"x", 0, False, properties(response_topic=""))
    peer.send(Connect(5, world.client_id(), True, 60, None, None, will))
    assert peer.expect_close() == [Connack(False, 0x82)]


@shows(v5="3.1.4-3 3.1.3-2 3.14.2-1", v3="3.1.4-2 3.1.3-2")
@PROTOCOLS
def test_client_with_the_same_client_id_takes_over(world: World, protocol: int) -> None:
    first = world.client(protocol=protocol)
    second = world.client(first.client_id, protocol)
    first.expect_end(0x8E)
    second.alive()


@shows(v5="3.1.3-2", v3="3.1.3-2")
def test_client_id_identifies_the_session(world: World) -> None:
    topic = world.topic()
    first, second = world.client(expiry=60), world.client(expiry=60)
    first.subscribe(topic)
    first.leave()
    second.leave()
    again = world.client(first.client_id, clean=False)
    assert again.connack.session_present
    publisher = world.client(second.client_id, clean=False)
    assert publisher.publish(topic) == 0
    assert again.message().topic == topic
    publisher.expect_nothing()


@shows(v5="3.2.0-1 3.14.0-1", v3="3.2.0-1")
@PROTOCOLS
def test_connack_is_the_first_packet_of_the_server(world: World, protocol: int) -> None:
    """Also when a PINGREQ arrives together with the CONNECT and messages are queued."""
    first = world.client(protocol=protocol, clean=False, expiry=60 if protocol == 5 else None)
    topic = world.topic()
    first.subscribe(topic)
    first.leave()
    world.client().publish(topic)
    peer = world.peer(protocol, first.client_id)
    peer.send(Connect(protocol, first.client_id, False), b"\xc0\x00")
    peer.expect(Connack)
    assert peer.find(Publish).topic == topic


@shows(v5="3.14.0-1 3.2.0-1", v3="3.2.0-1")
@PROTOCOLS
@pytest.mark.parametrize("expiry", [0, 60])
@pytest.mark.parametrize("wrong", [b"\x36\x00", raw.connect(4)])
def test_disconnect_never_precedes_connack(world: World, protocol: int, expiry: int, wrong: bytes) -> None:
    """An error arrives together with the CONNECT; the server may answer the CONNECT or not."""
    peer = world.peer(protocol)
    kept = properties(session_expiry=expiry) if protocol == 5 else None
    peer.send(Connect(protocol, world.client_id(), expiry == 0, properties=kept), wrong)
    packets = peer.expect_close()
    assert packets == [] or isinstance(packets[0], Connack)
    assert len(packets) <= (2 if protocol == 5 else 1)


@pytest.mark.parametrize(("flags", "rest"), [(0x82, b""), (0xC2, b""), (0xC2, raw.text(b"user"))])
def test_client_of_3_1_may_omit_fields_that_its_flags_announce(world: World, flags: int, rest: bytes) -> None:
    peer = world.peer(3)
    peer.send(raw.connect(3, flags, rest=rest))
    assert peer.expect(Connack).reason == 0
