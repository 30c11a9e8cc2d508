"""The order of messages and of answers (MQTT 5.0 and 3.1.1 section 4.6)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import PUBACK, PUBREC, PUBREL, Ack, Publish
from tests.conformance.clients import PROTOCOLS, lasting, resume
from tests.conformance.world import RECEIVE_MAXIMUM, World
from tests.support.shows import shows


@shows(v5="4.3.2-4 4.3.3-8", v3="4.6.0-2 4.6.0-3 4.6.0-6")
@PROTOCOLS
def test_publishes_are_acknowledged_in_order(world: World, protocol: int) -> None:
    """With or without a subscriber, and for any number of messages at a time."""
    peer, sleeper = world.client(protocol=protocol), lasting(world, protocol)
    topic = world.topic()
    sleeper.subscribe(f"{topic}/0")
    sleeper.leave()
    sent = [
        Publish(f"{topic}/{number % 3}", b"", 1 + number // 2 % 2, False, False, 500 - number)
        for number in range(RECEIVE_MAXIMUM)
    ]
    peer.send(*sent)
    got = [peer.expect(Ack) for _ in sent]
    assert [(ack.type, ack.packet_id) for ack in got] == [
        (PUBACK if message.qos == 1 else PUBREC, message.packet_id) for message in sent
    ]


@shows(v5="4.3.3-4", v3="4.6.0-4 4.6.0-6")
@PROTOCOLS
def test_pubrels_follow_the_order_of_pubrecs(world: World, protocol: int) -> None:
    peer, sender = world.client(protocol=protocol), world.client()
    topic = world.topic()
    peer.subscribe(topic)
    for _ in range(5):
        sender.publish(topic, b"x", 2)
    received = [peer.expect(Publish).packet_id for _ in range(5)]
    peer.send(*(Ack(PUBREC, packet_id) for packet_id in received))
    released = [peer.expect(Ack) for _ in received]
    assert released == [Ack(PUBREL, packet_id) for packet_id in received]


@shows(v5="4.4.0-1 3.3.1-1 4.3.2-2 4.3.3-2 4.6.0-5", v3="4.6.0-1 4.6.0-6 3.3.1-1")
@PROTOCOLS
def test_sent_messages_are_repeated_before_unsent_ones(world: World, protocol: int) -> None:
    """In the original order, with DUP on sent messages only."""
    receiver, sender = lasting(world, protocol), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    wanted = [b"%d" % number for number in range(10)]
    for payload in wanted[:6]:
        sender.publish(topic, payload, 1 + int(payload) % 2)
    sent = [receiver.expect(Publish) for _ in range(6)]
    for message in sent[:2]:
        receiver.acknowledge(message)
    receiver.sync()
    receiver.lose()
    for payload in wanted[6:]:
        sender.publish(topic, payload, 1 + int(payload) % 2)
    receiver = resume(world, receiver)
    got = [receiver.message() for _ in range(8)]
    assert [(message.payload, message.dup) for message in got] == [(one, int(one) < 6) for one in wanted[2:]]
    assert [message.packet_id for message in got[:4]] == [message.packet_id for message in sent[2:]]
    receiver.expect_nothing()


def numbered(topic: str, name: int, number: int, qos: int) -> Publish:
    """A publisher's message with its name and number."""
    return Publish(topic, b"%d %d" % (name, number), qos, False, False, number + 1 if qos else 0)


@shows(v5="4.6.0-5 4.6.0-6", v3="4.6.0-5 4.6.0-6")
@PROTOCOLS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_bursts_of_two_publishers_stay_in_order(world: World, protocol: int, qos: int) -> None:
    """The messages of one publisher and topic stay in order, though both publishers send in bursts."""
    receiver = world.client(protocol=protocol)
    topic = world.topic()
    receiver.subscribe(f"{topic}/+")
    senders = [world.client(protocol=protocol) for _ in range(2)]
    count = RECEIVE_MAXIMUM // 2  # of each, so that all fit into the receiver's window
    for first in (0, count // 2):
        for name, sender in enumerate(senders):
            packets: list[Publish] = []
            for number in range(first, first + count // 2):
                packets.append(numbered(f"{topic}/{number % 2}", name, number, qos))
            sender.send(*packets)
    got = [receiver.message() for _ in range(2 * count)]
    for name in range(2):
        for level in range(2):
            numbers = [
                int(message.payload.split()[1])
                for message in got
                if message.topic == f"{topic}/{level}" and message.payload.startswith(b"%d " % name)
            ]
            assert numbers == list(range(level, count, 2))
    receiver.expect_nothing()


@shows(v5="4.6.0-5 3.3.4-9")
def test_window_of_one_keeps_the_order(world: World) -> None:
    """Messages of QoS 1 and 2 do not overtake each other."""
    receiver, sender = world.client(receive_maximum=1), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    wanted = [b"%d" % number for number in range(9)]
    for payload in wanted:
        sender.publish(topic, payload, 1 + int(payload) % 2)
    assert receiver.messages(9) == wanted
    receiver.expect_nothing()
