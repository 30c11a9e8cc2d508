"""QoS 1 and 2 in both directions, with repeats (MQTT 5.0 and 3.1.1 sections 4.3 and 4.4)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish
from tests.conformance.clients import PROTOCOLS, lasting, resume
from tests.conformance.world import World, properties
from tests.support.shows import shows

# The server receives


@shows(v5="4.3.3-8 4.3.3-10 4.3.3-11 4.3.3-12 3.6.2-1 3.7.2-1", v3="4.3.3-2")
@PROTOCOLS
def test_repeat_before_pubrel_is_answered_but_not_passed_on(world: World, protocol: int) -> None:
    receiver, sender = world.client(protocol=protocol), world.client(protocol=protocol)
    topic = world.topic()
    receiver.subscribe(topic)
    for dup in (False, True, True):
        sender.send(Publish(topic, b"first", 2, False, dup, 7))
        answer = sender.expect(Ack)
        assert (answer.type, answer.packet_id, answer.reason) == (PUBREC, 7, 0)
    sender.send(Ack(PUBREL, 7))
    answer = sender.expect(Ack)
    assert (answer.type, answer.packet_id, answer.reason) == (PUBCOMP, 7, 0)
    sender.send(Publish(topic, b"second", 2, False, False, 7))
    assert sender.expect(Ack).type == PUBREC
    assert receiver.messages(2) == [b"first", b"second"]
    receiver.expect_nothing()


@shows(v5="4.3.3-10", v3="4.3.3-2")
@PROTOCOLS
def test_repeat_on_a_new_connection_is_not_passed_on(world: World, protocol: int) -> None:
    receiver, sender = world.client(), lasting(world, protocol)
    topic = world.topic()
    receiver.subscribe(topic)
    sender.send(Publish(topic, b"once", 2, False, False, 7))
    sender.expect(Ack)
    sender.lose()
    sender = resume(world, sender)
    sender.send(Publish(topic, b"once", 2, False, True, 7))
    assert sender.expect(Ack).type == PUBREC
    sender.send(Ack(PUBREL, 7))
    assert sender.expect(Ack).reason == 0
    assert receiver.message().payload == b"once"
    receiver.expect_nothing()


@shows(v5="3.7.2-1 4.3.3-11 3.7.2-2 3.7.2-3")
@PROTOCOLS
def test_pubrel_for_an_unknown_identifier_is_answered(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(Ack(PUBREL, 99))
    answer = peer.expect(Ack)
    assert (answer.type, answer.packet_id, answer.properties) == (PUBCOMP, 99, None)
    assert answer.reason == (0x92 if protocol == 5 else 0)


@shows(v5="4.3.3-13")
def test_exchange_continues_after_its_message_expired(world: World) -> None:
    peer = world.client()
    peer.send(Publish(world.topic(), b"", 2, False, False, 7, properties(message_expiry=1)))
    assert peer.expect(Ack).type == PUBREC
    world.elapse(2)
    peer.send(Ack(PUBREL, 7))
    answer = peer.expect(Ack)
    assert (answer.type, answer.reason) == (PUBCOMP, 0)


# The server sends


@shows(v5="4.3.2-3 4.4.0-1 3.3.1-1", v3="4.3.2-1 4.4.0-1 3.3.1-1 2.3.1-4")
@PROTOCOLS
def test_qos_1_is_repeated_on_a_new_connection_until_puback(world: World, protocol: int) -> None:
    receiver, sender = lasting(world, protocol), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    for payload in (b"1", b"2"):
        sender.publish(topic, payload)
    first = [receiver.find(Publish) for _ in range(2)]
    receiver.expect_nothing()  # nothing is repeated on the same connection
    receiver.send(Ack(PUBACK, first[0].packet_id))
    receiver.sync()
    receiver.lose()
    receiver = resume(world, receiver)
    again = receiver.find(Publish)
    assert (again.packet_id, again.payload, again.dup) == (first[1].packet_id, b"2", True)
    receiver.send(Ack(PUBACK, again.packet_id))
    receiver.expect_nothing()


@shows(
    v5="4.3.3-3 4.3.3-4 4.3.3-5 4.3.3-6 4.4.0-1 3.6.2-1 3.6.2-2 3.6.2-3",
    v3="4.3.3-1 4.4.0-1 3.3.1-1 2.3.1-4",
)
@PROTOCOLS
def test_qos_2_exchange_resumes_on_a_new_connection(world: World, protocol: int) -> None:
    receiver, sender = lasting(world, protocol), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    sender.publish(topic, b"once", 2)
    first = receiver.expect(Publish)
    receiver.lose()
    receiver = resume(world, receiver)
    again = receiver.expect(Publish)
    assert (again.packet_id, again.dup) == (first.packet_id, True)
    receiver.send(Ack(PUBREC, again.packet_id))
    release = receiver.expect(Ack)
    assert (release.type, release.packet_id, release.reason, release.properties) == (PUBREL, again.packet_id, 0, None)
    receiver.lose()
    receiver = resume(world, receiver)
    release = receiver.expect(Ack)
    assert (release.type, release.packet_id) == (PUBREL, again.packet_id)
    receiver.send(Ack(PUBCOMP, again.packet_id))
    receiver.expect_nothing()
    receiver.lose()
    resume(world, receiver).expect_nothing()


@shows(v5="4.4.0-1", v3="4.4.0-1")
@PROTOCOLS
def test_order_is_kept_across_connections(world: World, protocol: int) -> None:
    receiver, sender = lasting(world, protocol), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    wanted = [b"%d" % number for number in range(10)]
    for payload in wanted:
        sender.publish(topic, payload, 1 + int(payload) % 2)
    seen = [receiver.find(Publish).payload for _ in range(5)]
    receiver.lose()
    receiver = resume(world, receiver)
    assert seen == wanted[:5]
    assert receiver.messages(10) == wanted


@shows(v5="4.4.0-2 3.6.2-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_error_from_the_receiver_ends_the_exchange(world: World, qos: int) -> None:
    receiver, sender = lasting(world, 5), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    sender.publish(topic, b"x", qos)
    message = receiver.expect(Publish)
    receiver.send(Ack(PUBACK if qos == 1 else PUBREC, message.packet_id, 0x80))
    receiver.expect_nothing()
    receiver.lose()
    resume(world, receiver).expect_nothing()


@shows(v5="3.6.2-1")
def test_pubrec_for_an_unknown_identifier_gets_an_error(world: World) -> None:
    peer = world.client()
    peer.send(Ack(PUBREC, 99))
    answer = peer.expect(Ack)
    assert (answer.type, answer.packet_id, answer.reason) == (PUBREL, 99, 0x92)


@PROTOCOLS
@pytest.mark.parametrize("type", [PUBACK, PUBCOMP])
def test_puback_or_pubcomp_for_an_unknown_identifier_is_ignored(world: World, protocol: int, type: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(Ack(type, 99))
    peer.expect_nothing()


@shows(v5="4.3.3-7")
def test_sent_message_does_not_expire(world: World) -> None:
    receiver, sender = lasting(world, 5), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    sender.publish(topic, b"x", 2, properties=properties(message_expiry=1))
    message = receiver.expect(Publish)
    world.elapse(2.5)
    receiver.send(Ack(PUBREC, message.packet_id))
    release = receiver.expect(Ack)
    assert (release.type, release.reason) == (PUBREL, 0)
    receiver.send(Ack(PUBCOMP, message.packet_id))
    receiver.expect_nothing()
