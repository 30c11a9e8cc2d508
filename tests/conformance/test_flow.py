"""Flow control: receive maximum and packet sizes in both directions (MQTT 5.0 sections 3.1.2.11, 3.2.2.3 and 4.9)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import (
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Ping,
    Publish,
    SubAck,
    Subscription,
)
from mesh.wire.properties import Properties
from tests.conformance import raw
from tests.conformance.clients import PROTOCOLS, watch
from tests.conformance.peer import Peer
from tests.conformance.world import ALIASES, IN_FLIGHT, MAX_PACKET, RECEIVE_MAXIMUM, World, properties
from tests.support.shows import shows

TIGHT = 60  # bytes; more than CONNACK takes


def released(peer: Peer, message: Publish) -> None:
    """Send PUBREC and receive PUBREL."""
    peer.send(Ack(PUBREC, message.packet_id))
    answer = peer.expect(Ack)
    assert (answer.type, answer.packet_id) == (PUBREL, message.packet_id)


# What the server sends


@shows(v5="3.3.4-9 4.9.0-1 4.9.0-2 4.3.2-3")
@pytest.mark.parametrize("maximum", [1, 3])
def test_server_keeps_to_the_clients_receive_maximum(world: World, maximum: int) -> None:
    peer, sender = world.client(receive_maximum=maximum), world.client()
    topic = world.topic()
    peer.subscribe(topic)
    for number in range(maximum + 2):
        sender.publish(topic, b"%d" % number)
    first = [peer.expect(Publish) for _ in range(maximum)]
    assert [message.payload for message in first] == [b"%d" % number for number in range(maximum)]
    peer.expect_nothing()
    peer.send(Ack(PUBACK, first[0].packet_id))
    assert peer.expect(Publish).payload == b"%d" % maximum
    peer.expect_nothing()


@shows(v5="3.3.4-9 4.9.0-2 4.3.3-3 4.3.3-4 4.3.3-5", v3="4.3.3-1")
def test_window_frees_at_the_end_of_an_exchange(world: World) -> None:
    """PUBREC does not end the exchange, unless it refuses the message."""
    peer, sender = world.client(receive_maximum=1), world.client()
    topic = world.topic()
    peer.subscribe(topic)
    for number in range(3):
        sender.publish(topic, b"%d" % number, 2)
    message = peer.expect(Publish)
    released(peer, message)
    peer.expect_nothing()
    peer.send(Ack(PUBCOMP, message.packet_id))
    message = peer.expect(Publish)
    assert message.payload == b"1"
    peer.send(Ack(PUBREC, message.packet_id, 0x80))
    assert peer.expect(Publish).payload == b"2"
    peer.expect_nothing()


@shows(v5="3.3.4-10 4.9.0-3")
def test_full_window_stops_only_qos_1_and_2_messages(world: World) -> None:
    peer = world.client(receive_maximum=1)
    topic = world.topic()
    peer.subscribe(topic)
    peer.publish(topic)
    peer.publish(topic)
    held = peer.expect(Publish)
    peer.alive()
    assert peer.subscribe(topic + "/other") == [2]
    assert peer.publish(topic + "/unknown", qos=1) == 0x10
    assert peer.publish(topic + "/unknown", qos=2) == 0x10
    assert peer.unsubscribe(topic + "/other") == [0]
    peer.expect_nothing()
    peer.send(Ack(PUBACK, held.packet_id))
    peer.expect(Publish)


@shows(v5="4.9.0-1 3.3.4-9")
def test_new_connection_has_its_own_receive_maximum(world: World) -> None:
    peer, sender = world.client(expiry=60, receive_maximum=3), world.client()
    topic = world.topic()
    peer.subscribe(topic)
    for number in range(4):
        sender.publish(topic, b"%d" % number)
    for _ in range(3):
        peer.expect(Publish)
    peer.lose()
    peer = world.client(peer.client_id, clean=False, expiry=60, receive_maximum=2)
    assert [peer.expect(Publish).payload for _ in range(2)] == [b"0", b"1"]
    peer.expect_nothing()


@pytest.mark.parametrize(("protocol", "maximum"), [(3, None), (4, None), (5, None), (5, IN_FLIGHT + 1)])
def test_server_keeps_to_its_own_window(world: World, protocol: int, maximum: int | None) -> None:
    peer, sender = world.client(protocol=protocol, receive_maximum=maximum), world.client()
    topic = world.topic()
    peer.subscribe(topic)
    for _ in range(IN_FLIGHT + 1):
        sender.publish(topic)
    held = [peer.expect(Publish) for _ in range(IN_FLIGHT)]
    peer.expect_nothing()
    peer.acknowledge(held[0])
    peer.expect(Publish)


@shows(v5="3.1.2-24 3.1.2-25")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_too_large_message_counts_as_sent(world: World, qos: int) -> None:
    """The message takes no place in the window and is not sent later."""
    peer, sender = world.client(expiry=60, maximum_packet_size=TIGHT, receive_maximum=1), world.client()
    topic = world.topic()
    peer.subscribe(topic)
    for payload in (b"x" * TIGHT, b"first", b"x" * TIGHT, b"second"):
        sender.publish(topic, payload, qos)
    assert peer.messages(2) == [b"first", b"second"]
    peer.lose()
    peer = world.client(peer.client_id, clean=False)
    assert peer.connack.session_present
    peer.expect_nothing()


@shows(v5="3.1.2-24 3.1.2-25")
def test_maximum_packet_size_is_exact(world: World) -> None:
    peer, sender = world.client(maximum_packet_size=TIGHT), world.client()
    topic = world.topic()
    peer.subscribe(topic)
    room = TIGHT - len(raw.publish(topic.encode(), 5)) - 2  # the packet identifier
    sender.publish(topic, b"a" * (room + 1))
    sender.publish(topic, b"b" * room)
    before = len(peer.received)
    assert peer.expect(Publish).payload == b"b" * room
    assert len(peer.received) - before == TIGHT
    peer.expect_nothing()


@shows(v5="3.1.2-24 3.1.2-25")
def test_packet_size_of_the_new_connection_limits_queued_messages(world: World) -> None:
    peer, sender = world.client(expiry=60), world.client()
    topic = world.topic()
    peer.subscribe(topic)
    peer.lose()
    sender.publish(topic, b"x" * TIGHT)
    sender.publish(topic, b"small")
    peer = world.client(peer.client_id, clean=False, maximum_packet_size=TIGHT)
    assert peer.message().payload == b"small"
    peer.expect_nothing()


@shows(v5="3.1.2-24 3.9.2-1")
def test_too_large_suback_ends_connection(world: World) -> None:
    """The SUBACK for so many filters exceeds the client's maximum, and the client waits for it."""
    peer = world.client(maximum_packet_size=TIGHT)
    peer.subscribe(*(f"a/{number}" for number in range(10)))
    peer.send(raw.packet(0x82, b"\x00\x07\x00" + b"\x00\x01a\x00" * 25))
    assert len(peer.expect(SubAck).reasons) == 25
    wire = b"\x00\x07\x00" + b"\x00\x01a\x00" * 60
    peer.send(b"\x82" + bytes((len(wire) & 0x7F | 0x80, len(wire) >> 7)) + wire)
    peer.expect_end(0x95)


@shows(v5="3.1.2-26 3.1.2-27 3.3.2-11")
@pytest.mark.parametrize("maximum", [None, 0, 1, 2, 0xFFFF])
def test_server_uses_at_most_the_clients_number_of_aliases(world: World, maximum: int | None) -> None:
    peer, sender = world.client(topic_alias_maximum=maximum), world.client()
    topic = world.topic()
    peer.subscribe(topic + "/+", qos=1)
    for number in range(12):
        sender.publish(f"{topic}/{number}")
    used = set()
    for _ in range(12):
        got = peer.message().properties
        used.add(None if got is None else got.topic_alias)
    assert used - {None} == set(range(1, min(maximum or 0, ALIASES) + 1))


# What the client sends


def fill(peer: Peer, topic: str, number: int = RECEIVE_MAXIMUM) -> None:
    """Publish this number of QoS 2 messages and leave their exchanges open."""
    peer.send(*(Publish(topic, b"%d" % one, 2, False, False, one) for one in range(1, number + 1)))
    expect_all(peer, PUBREC, number)


def expect_all(peer: Peer, type: int, number: int) -> None:
    """The next acknowledgements have this type, are in order and report no error."""
    got = [peer.find(Ack) for _ in range(number)]
    assert [(one.type, one.packet_id) for one in got] == [(type, packet_id) for packet_id in range(1, number + 1)]
    assert all(one.reason < 0x80 for one in got)


@shows(v5="3.3.4-7 4.9.0-2 4.13.1-1")
def test_client_above_the_servers_receive_maximum_is_closed(world: World) -> None:
    watcher, topic = watch(world)
    peer = world.client()
    fill(peer, topic)
    peer.send(Publish(topic, b"too much", 2, False, False, 100))
    peer.expect_end(0x93)
    assert b"too much" not in watcher.messages(RECEIVE_MAXIMUM)
    watcher.expect_nothing()


@shows(v5="4.9.0-1 4.9.0-2")
def test_pubrel_frees_the_servers_window(world: World) -> None:
    peer = world.client()
    topic = world.topic()
    for _ in range(2):
        fill(peer, topic)
        peer.send(*(Ack(PUBREL, number) for number in range(1, RECEIVE_MAXIMUM + 1)))
        expect_all(peer, PUBCOMP, RECEIVE_MAXIMUM)


@shows(v5="3.3.4-8 4.9.0-3")
def test_client_at_the_maximum_may_send_other_packets(world: World) -> None:
    peer = world.client()
    topic = world.topic()
    fill(peer, topic)
    peer.send(b"\xc0\x00", Publish(topic, b"1", 2, False, True, 1), Publish(topic, b"", 0))
    expect_all(peer, PUBREC, 1)
    peer.find(Ping)
    assert peer.subscribe(topic) == [2]


@pytest.mark.parametrize("protocol", [3, 4])
def test_older_client_has_no_receive_maximum(world: World, protocol: int) -> None:
    fill(world.client(protocol=protocol), world.topic(), 3 * RECEIVE_MAXIMUM)


@shows(v5="3.2.2-15 4.13.1-1", v3="4.8.0-1")
@PROTOCOLS
def test_packet_above_the_servers_size_ends_connection(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    topic = world.topic()
    header = 1 + 3 + 2 + len(topic) + 2 + (protocol == 5)
    peer.publish(topic, b"x" * (MAX_PACKET - header))
    peer.send(Publish(topic, b"x" * (MAX_PACKET - header + 1), 1, False, False, 100))
    peer.expect_end(0x95)


@shows(v5="3.2.2-15")
def test_too_large_length_alone_ends_connection(world: World) -> None:
    """The server does not wait for the body of a packet that it refuses."""
    peer = world.client()
    peer.send(b"\x30\xff\xff\xff\x7f")
    peer.expect_end(0x95)


@shows(v5="3.1.4-1")
@pytest.mark.parametrize("zero", [b"\x21\x00\x00", b"\x27\x00\x00\x00\x00"])
def test_maximum_of_0_is_refused(world: World, zero: bytes) -> None:
    peer = world.peer()
    peer.send(raw.connect(5, properties=zero))
    assert peer.expect_close() == [Connack(False, 0x82)]


# Reason strings and user properties


def explained(told: Properties | None) -> bool:
    """Whether the properties hold a reason string or a user property."""
    return told is not None and (told.reason_string is not None or told.user != [])


@shows(v5="3.1.2-29")
@pytest.mark.parametrize("wanted", [None, 0, 1])
def test_reason_strings_are_sent_unless_the_client_declines(world: World, wanted: int | None) -> None:
    peer = world.client(request_problem_info=wanted, receive_maximum=9)
    for qos, answer in ((1, PUBACK), (2, PUBREC)):
        peer.send(Publish("refused/x", b"", qos, False, False, 9))
        ack = peer.expect(Ack)
        assert (ack.type, ack.reason) == (answer, 0x87)
        assert explained(ack.properties) == (wanted != 0)
    peer.send(raw.subscribe(b"refused/x", 5))
    suback = peer.expect(SubAck)
    assert suback.reasons == [0x87]
    assert explained(suback.properties) == (wanted != 0)


@shows(v5="3.14.2-3 3.1.2-24")
@pytest.mark.parametrize("wrong", [b"\x30\xff\xff\xff\x7f", b"\x30\xff\xff\xff\xff\x01", b"\x32\x02\x00\x00"])
def test_disconnect_has_a_reason_string_if_it_fits(world: World, wrong: bytes) -> None:
    for most, told in ((None, True), (20, False)):
        peer = world.client(maximum_packet_size=most)
        peer.send(wrong)
        last = peer.expect(Disconnect)
        assert last.reason in (0x81, 0x82, 0x95)
        assert explained(last.properties) == told
        assert peer.expect_close() == []


@shows(v5="3.1.2-29")
def test_messages_keep_user_properties_without_problem_info(world: World) -> None:
    peer = world.client(request_problem_info=0)
    topic = world.topic()
    peer.subscribe(Subscription(topic, 1))
    peer.publish(topic, properties=properties(user=[("a", "b")]))
    got = peer.message().properties
    assert got is not None
    assert got.user == [("a", "b")]


@shows(v5="3.1.2-28")
def test_request_information_other_than_0_or_1_is_refused(world: World) -> None:
    for identifier in (0x17, 0x19):
        peer = world.peer()
        peer.send(raw.connect(5, properties=bytes((identifier, 2))))
        assert peer.expect_close() == [Connack(False, 0x82)]
    peer = world.peer()
    peer.send(Connect(5, world.client_id(), properties=properties(request_response_info=0)))
    answer = peer.expect(Connack)
    assert answer.properties is None or answer.properties.response_info is None
