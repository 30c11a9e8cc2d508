"""When packets are sent again, and when they are not (MQTT 5.0 and 3.1.1 section 4.4)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish
from tests.conformance.clients import PROTOCOLS, lasting, resume
from tests.conformance.world import World, properties
from tests.support.shows import shows


@shows(v5="4.4.0-1", v3="4.4.0-1")
def test_server_repeats_nothing_on_the_same_connection(world: World) -> None:
    """Neither PUBLISH nor PUBREL, however late the answer is."""
    receivers, sender = [lasting(world, protocol) for protocol in (4, 5)], world.client()
    topic = world.topic()
    held: list[Publish] = []
    for receiver in receivers:
        receiver.subscribe(topic)
    for qos in (1, 2, 2):
        sender.publish(topic, b"x", qos)
    for receiver in receivers:
        one, _, released = (receiver.expect(Publish) for _ in range(3))
        held.append(one)
        receiver.send(Ack(PUBREC, released.packet_id))
        assert receiver.expect(Ack) == Ack(PUBREL, released.packet_id)
    world.elapse(3)
    for receiver, one in zip(receivers, held, strict=True):
        receiver.expect_nothing()
        receiver.acknowledge(one)
        receiver.expect_nothing()


@shows(v5="4.3.3-7 4.4.0-1 3.3.1-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_sent_message_is_repeated_after_its_expiry(world: World, qos: int) -> None:
    """Its delivery has begun; the message queued behind it is dropped."""
    receiver, sender = world.client(expiry=60, receive_maximum=1), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    for payload in (b"sent", b"waiting"):
        sender.publish(topic, payload, qos, properties=properties(message_expiry=1))
    first = receiver.expect(Publish)
    receiver.expect_nothing()
    receiver.lose()
    world.elapse(1.2)
    receiver = resume(world, receiver)
    again = receiver.message()
    assert (again.payload, again.packet_id, again.dup) == (b"sent", first.packet_id, True)
    assert again.properties is not None
    assert again.properties.message_expiry == 0
    receiver.expect_nothing()


@shows(v5="4.4.0-1 3.1.2-4", v3="4.4.0-1 3.1.2-6")
@PROTOCOLS
def test_new_session_repeats_nothing(world: World, protocol: int) -> None:
    receiver, sender = lasting(world, protocol), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    for qos in (1, 2, 2):
        sender.publish(topic, b"x", qos)
    message = [receiver.expect(Publish) for _ in range(3)][-1]
    receiver.send(Ack(PUBREC, message.packet_id))
    receiver.expect(Ack)
    receiver.lose()
    receiver = world.client(receiver.client_id, protocol, clean=True)
    receiver.subscribe(topic)
    receiver.expect_nothing()


@shows(v5="3.3.1-1 4.3.2-2 4.3.3-2", v3="3.3.1-1")
@PROTOCOLS
def test_queued_message_is_first_sent_without_dup(world: World, protocol: int) -> None:
    receiver, sender = lasting(world, protocol), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    receiver.leave()
    for qos in (1, 2):
        sender.publish(topic, b"x", qos)
    receiver = resume(world, receiver)
    assert [receiver.message().dup for _ in range(2)] == [False, False]


@shows(v5="4.3.3-4 4.3.3-5 4.3.3-6", v3="4.3.3-1")
@PROTOCOLS
def test_every_pubrec_is_answered(world: World, protocol: int) -> None:
    receiver, sender = lasting(world, protocol), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    sender.publish(topic, b"once", 2)
    message = receiver.expect(Publish)
    for _ in range(2):
        receiver.send(Ack(PUBREC, message.packet_id))
        assert receiver.expect(Ack) == Ack(PUBREL, message.packet_id)
    receiver.lose()
    receiver = resume(world, receiver)
    assert receiver.expect(Ack) == Ack(PUBREL, message.packet_id)
    receiver.send(Ack(PUBREC, message.packet_id))
    assert receiver.expect(Ack) == Ack(PUBREL, message.packet_id)
    receiver.send(Ack(PUBCOMP, message.packet_id))
    receiver.expect_nothing()


@shows(v5="4.4.0-1", v3="4.4.0-1 4.6.0-4")
@PROTOCOLS
def test_pubrels_are_repeated_in_order(world: World, protocol: int) -> None:
    receiver, sender = lasting(world, protocol), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    for _ in range(3):
        sender.publish(topic, b"x", 2)
    identifiers = [receiver.expect(Publish).packet_id for _ in range(3)]
    for packet_id in identifiers:
        receiver.send(Ack(PUBREC, packet_id))
        receiver.expect(Ack)
    receiver.lose()
    receiver = resume(world, receiver)
    assert [receiver.expect(Ack) for _ in identifiers] == [Ack(PUBREL, packet_id) for packet_id in identifiers]


@shows(v5="4.4.0-2")
@pytest.mark.parametrize(("qos", "type"), [(1, PUBACK), (2, PUBREC)])
def test_receiver_may_refuse_a_repeat(world: World, qos: int, type: int) -> None:
    receiver, sender = lasting(world, 5), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    sender.publish(topic, b"x", qos)
    receiver.expect(Publish)
    receiver.lose()
    receiver = resume(world, receiver)
    again = receiver.expect(Publish)
    receiver.send(Ack(type, again.packet_id, 0x99))
    receiver.expect_nothing()
    receiver.lose()
    resume(world, receiver).expect_nothing()
