"""PUBACK, PUBREC, PUBREL and PUBCOMP in all their forms (MQTT 5.0 and 3.1.1 sections 3.4 to 3.7)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Disconnect, Publish
from tests.conformance import raw
from tests.conformance.clients import PROTOCOLS
from tests.conformance.peer import Peer
from tests.conformance.world import World
from tests.support.shows import shows

# Without a code; with one; with an empty property list; with a reason string and a user property. All mean "success".
FORMS = [b"", b"\x00", b"\x00\x00", b"\x00\x0b" + b"\x1f\x00\x01a" + b"\x26\x00\x01b\x00\x01c"]
FIRST = {PUBACK: 0x40, PUBREC: 0x50, PUBREL: 0x62, PUBCOMP: 0x70}


def ack(type: int, packet_id: int, rest: bytes = b"") -> bytes:
    """An acknowledgement with these bytes after its identifier."""
    return raw.packet(FIRST[type], packet_id.to_bytes(2, "big") + rest)


def received(world: World, protocol: int, qos: int) -> tuple[Peer, Publish]:
    """A client with a message that it has not acknowledged; with 5.0 its receive maximum is 1."""
    peer, topic = world.client(protocol=protocol, receive_maximum=1 if protocol == 5 else None), world.topic()
    peer.subscribe(topic)
    sender = world.client()
    for payload in (b"first", b"second"):
        sender.publish(topic, payload, qos)
    return peer, peer.expect(Publish)


@shows(v5="4.3.2-3 4.3.3-4 4.3.3-5 3.6.2-1")
@pytest.mark.parametrize("form", FORMS)
def test_receiver_may_acknowledge_in_any_form(world: World, form: bytes) -> None:
    """In every form the exchange continues, and the next message follows."""
    peer, message = received(world, 5, 1)
    peer.send(ack(PUBACK, message.packet_id, form))
    assert peer.expect(Publish).payload == b"second"
    peer, message = received(world, 5, 2)
    peer.send(ack(PUBREC, message.packet_id, form))
    assert peer.expect(Ack) == Ack(PUBREL, message.packet_id)
    peer.send(ack(PUBCOMP, message.packet_id, form))
    assert peer.expect(Publish).payload == b"second"


@shows(v5="4.3.3-11 3.7.2-1")
@pytest.mark.parametrize("form", FORMS)
def test_publisher_may_send_pubrel_in_any_form(world: World, form: bytes) -> None:
    peer = world.client()
    peer.send(Publish(world.topic(), b"", 2, False, False, 7))
    assert peer.expect(Ack).type == PUBREC
    peer.send(ack(PUBREL, 7, form))
    assert peer.expect(Ack) == Ack(PUBCOMP, 7)


@shows(v5="4.4.0-2 3.4.2-1 3.5.2-1")
@pytest.mark.parametrize("reason", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
@pytest.mark.parametrize(("qos", "type"), [(1, PUBACK), (2, PUBREC)])
def test_error_from_receiver_frees_its_window(world: World, qos: int, type: int, reason: int) -> None:
    peer, message = received(world, 5, qos)
    peer.send(ack(type, message.packet_id, bytes((reason,))))
    assert peer.expect(Publish).payload == b"second"


@shows(v5="4.3.2-3 4.3.3-4")
@pytest.mark.parametrize(("qos", "type"), [(1, PUBACK), (2, PUBREC)])
def test_reason_no_subscribers_continues_the_exchange(world: World, qos: int, type: int) -> None:
    peer, message = received(world, 5, qos)
    peer.send(ack(type, message.packet_id, b"\x10"))
    if qos == 2:
        assert peer.expect(Ack) == Ack(PUBREL, message.packet_id)
        peer.send(ack(PUBCOMP, message.packet_id))
    assert peer.expect(Publish).payload == b"second"


@shows(v5="3.7.2-1 3.6.2-1 4.3.3-11")
def test_pubrel_with_reason_0x92_gets_pubcomp(world: World) -> None:
    """0x92 (packet identifier not found) in a PUBREL ends the exchange as well."""
    peer, topic = world.client(), world.topic()
    peer.send(Publish(topic, b"", 2, False, False, 7))
    peer.expect(Ack)
    peer.send(ack(PUBREL, 7, b"\x92"))
    answer = peer.expect(Ack)
    assert (answer.type, answer.packet_id, answer.reason) == (PUBCOMP, 7, 0)


@shows(v5="3.4.2-1 3.5.2-1 3.6.2-1 3.7.2-1 4.13.1-1")
@pytest.mark.parametrize("type", [PUBACK, PUBREC, PUBREL, PUBCOMP])
@pytest.mark.parametrize("reason", [0x01, 0x04, 0x11, 0x81, 0x93, 0xFF])
def test_unknown_reason_code_ends_connection(world: World, type: int, reason: int) -> None:
    peer = world.client()
    peer.send(ack(type, 1, bytes((reason,))))
    peer.expect_end(0x82)


@shows(v5="3.4.2-1 3.5.2-1 3.6.2-1 3.7.2-1 4.13.1-1")
@pytest.mark.parametrize(("type", "reason"), [(PUBACK, 0x92), (PUBREC, 0x92), (PUBREL, 0x10), (PUBCOMP, 0x87)])
def test_reason_code_of_another_packet_type_ends_connection(world: World, type: int, reason: int) -> None:
    peer = world.client()
    peer.send(ack(type, 1, bytes((reason,))))
    peer.expect_end(0x82)


@shows(v5="4.13.1-1", v3="4.8.0-1")
@PROTOCOLS
@pytest.mark.parametrize("type", [PUBACK, PUBREC, PUBREL, PUBCOMP])
def test_acknowledgement_with_extra_bytes_ends_connection(world: World, protocol: int, type: int) -> None:
    """Before 5.0 an acknowledgement holds the identifier only."""
    peer = world.client(protocol=protocol)
    peer.send(ack(type, 1, b"\x00\x00\x00" if protocol == 5 else b"\x00"))
    peer.expect_end(0x81)


@shows(v5="2.2.1-5 4.3.3-11", v3="2.3.1-6 4.3.3-2")
@PROTOCOLS
def test_identifiers_of_both_directions_are_independent(world: World, protocol: int) -> None:
    """The same identifier names one exchange from the client and another one from the server."""
    peer, topic, own = world.client(protocol=protocol), world.topic(), world.topic()
    peer.subscribe(topic)
    world.client().publish(topic, b"from the server", 2)
    message = peer.expect(Publish)
    packet_id = message.packet_id
    peer.send(Publish(own, b"", 2, False, False, packet_id))
    assert peer.expect(Ack).type == PUBREC
    peer.send(Ack(PUBREC, packet_id))
    assert peer.expect(Ack) == Ack(PUBREL, packet_id)
    peer.send(Ack(PUBREL, packet_id))
    assert peer.expect(Ack) == Ack(PUBCOMP, packet_id)
    peer.send(Ack(PUBCOMP, packet_id))
    peer.expect_nothing()


@shows(v5="4.13.1-1 4.3.2-2 4.3.3-2", v3="4.8.0-1")
@PROTOCOLS
@pytest.mark.parametrize(
    ("qos", "type"), [(1, PUBREC), (1, PUBCOMP), (2, PUBACK), (2, PUBCOMP)], ids=lambda value: str(value)
)
def test_acknowledgement_of_another_exchange_ends_connection(world: World, protocol: int, qos: int, type: int) -> None:
    """The message is not acknowledged: the client gets it again on its next connection."""
    peer = world.client(protocol=protocol, clean=False, expiry=60 if protocol == 5 else None)
    topic = world.topic()
    peer.subscribe(topic)
    world.client().publish(topic, b"kept", qos)
    message = peer.expect(Publish)
    peer.send(Ack(type, message.packet_id))
    peer.expect_end(0x82)
    again = world.client(peer.client_id, protocol, clean=False, expiry=60 if protocol == 5 else None)
    repeat = again.message()
    assert (repeat.payload, repeat.packet_id, repeat.dup) == (b"kept", message.packet_id, True)
    again.expect_nothing()


@shows(v5="4.13.1-1 4.3.3-5", v3="4.8.0-1")
@PROTOCOLS
def test_puback_of_a_released_message_ends_connection(world: World, protocol: int) -> None:
    peer, message = received(world, protocol, 2)
    peer.send(Ack(PUBREC, message.packet_id))
    assert peer.find(Ack).type == PUBREL
    peer.send(Ack(PUBACK, message.packet_id))
    packets = peer.expect_close()
    assert [packet.reason for packet in packets if isinstance(packet, Disconnect)] == ([0x82] if protocol == 5 else [])


@pytest.mark.parametrize(("qos", "type"), [(1, PUBREC)])
def test_pubrec_with_an_error_for_qos_1_ends_connection(world: World, qos: int, type: int) -> None:
    peer, message = received(world, 5, qos)
    peer.send(ack(type, message.packet_id, b"\x80"))
    peer.expect_end(0x82)


@PROTOCOLS
@pytest.mark.parametrize("type", [PUBACK, PUBREC, PUBCOMP])
def test_acknowledgement_of_an_unknown_identifier_is_no_error(world: World, protocol: int, type: int) -> None:
    """A client may have acknowledged the message before, on a connection that was lost."""
    peer = world.client(protocol=protocol)
    peer.send(Ack(type, 77))
    if type == PUBREC:
        assert peer.expect(Ack).type == PUBREL
    peer.expect_nothing()
