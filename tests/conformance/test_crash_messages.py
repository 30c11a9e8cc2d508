"""Messages after the server was killed: every acknowledged message survives unchanged until it expires."""

from __future__ import annotations

import pytest

from mesh.wire.packets import PUBACK, PUBREC, Ack, Publish, Subscription
from tests.conformance.clients import lasting, resume
from tests.conformance.world import QUEUE, World, properties
from tests.support.shows import shows

FIELDS = {
    "payload_format": 1, "content_type": "text", "response_topic": "answers", "correlation_data": b"\0\1",
    "user": [("b", "1"), ("a", "2"), ("b", "0")],
}  # fmt: skip
SHORT, LONG = properties(message_expiry=2), properties(message_expiry=100)


@shows(v5="3.3.2-4 3.3.2-5 3.3.2-6 3.3.2-15 3.3.2-16 3.3.2-17 3.3.2-18 3.3.2-20 4.6.0-5")
def test_queued_messages_survive_a_crash(world: World) -> None:
    """With their order, properties, subscription identifiers and expiry."""
    sleeper, sender = lasting(world), world.client()
    topic = world.topic()
    sleeper.subscribe(topic, identifier=9)
    sleeper.leave()
    for number in range(10):
        expiry = 1 if number % 3 == 0 else 100
        fields = properties(message_expiry=expiry, **FIELDS)
        assert sender.publish(topic, b"%d" % number, 1 + number % 2, properties=fields) == 0
    world.crash()
    world.elapse(1.5)
    sleeper = resume(world, sleeper)
    got = [sleeper.message() for _ in range(6)]
    assert [message.payload for message in got] == [b"1", b"2", b"4", b"5", b"7", b"8"]
    for message in got:
        found = message.properties
        assert found is not None
        assert {name: getattr(found, name) for name in FIELDS} == FIELDS
        assert found.subscription_ids == [9]
        assert found.message_expiry is not None
        assert found.message_expiry < 100
    sleeper.expect_nothing()


@shows(v5="3.3.1-5 3.3.1-6 3.3.2-5 3.3.2-6", v3="3.1.2-7 3.3.1-5 3.3.1-10")
def test_retained_messages_survive_a_crash(world: World) -> None:
    """The last message of each topic, unless it was removed or has expired meanwhile."""
    sender = world.client()
    prefix = world.topic()
    for name, payload, expiry in (
        ("plain", b"old", None), ("plain", b"new", None), ("removed", b"x", None), ("short", b"x", 1),
        ("long", b"x", 100),
    ):  # fmt: skip
        fields = dict(FIELDS) if expiry is None else {**FIELDS, "message_expiry": expiry}
        qos = 0 if name == "short" else 1  # QoS 0, so that it is no queued message
        sender.publish(f"{prefix}/{name}", payload, qos, retain=True, properties=properties(**fields))
    sender.publish(f"{prefix}/removed", b"", 1, retain=True)
    world.crash()
    world.elapse(1.5)
    later = world.client()
    later.subscribe(f"{prefix}/+")
    got = {message.topic.split("/")[1]: message for message in (later.message() for _ in range(2))}
    later.expect_nothing()
    assert sorted(got) == ["long", "plain"]
    assert (got["plain"].payload, got["plain"].retain) == (b"new", True)
    for message in got.values():
        assert message.properties is not None
        assert {name: getattr(message.properties, name) for name in FIELDS} == FIELDS
    left = got["long"].properties
    assert left is not None
    assert left.message_expiry is not None
    assert left.message_expiry < 100


def test_messages_of_an_absent_member_go_to_a_returning_one(world: World) -> None:
    """Messages queued for a member that stays away go to the member that returns."""
    topic = world.topic()
    members = [lasting(world) for _ in range(2)]
    for member in members:
        member.subscribe(f"$share/g/{topic}")
    sender = world.client()
    for number in range(10):
        sender.publish(topic, b"%d" % number)
    got = [packet for packet in members[0].sync() if isinstance(packet, Publish)]
    members[0].send(Ack(PUBACK, got[0].packet_id))
    members[0].sync()
    sender.publish(world.topic(), qos=1)
    world.crash()
    again = resume(world, members[0])
    seen = sorted(int(payload) for payload in again.messages(9))
    assert sorted([int(got[0].payload), *seen]) == list(range(10))
    again.expect_nothing()


def test_redistributed_message_stays_with_its_new_member(world: World) -> None:
    """The member that had it before does not get it again."""
    topic = world.topic()
    members = [lasting(world) for _ in range(2)]
    for member in members:
        member.subscribe(f"$share/g/{topic}")
    sender = world.client()
    for number in range(6):
        sender.publish(topic, b"%d" % number)
    assert len([packet for packet in members[0].sync() if isinstance(packet, Publish)]) == 3
    members[0].lose()
    assert sorted(members[1].messages(6)) == [b"%d" % number for number in range(6)]
    members[1].expect_nothing()
    sender.publish(world.topic())  # its acknowledgement means that everything before it is on the disk
    world.crash()
    for member in members:
        resume(world, member).expect_nothing()


@pytest.mark.parametrize("qos", [1, 2])
def test_acknowledged_messages_survive_an_immediate_crash(world: World, qos: int) -> None:
    """The server is killed immediately after the last acknowledgement."""
    sleeper, sender = lasting(world), world.client()
    topic = world.topic()
    sleeper.subscribe(topic)
    sleeper.leave()
    for number in range(50):
        assert sender.publish(topic, b"%d" % number, qos) == 0
    world.crash()
    sleeper = resume(world, sleeper)
    assert sleeper.messages(50) == [b"%d" % number for number in range(50)]
    sleeper.expect_nothing()


@shows(v5="3.3.1-1 4.4.0-1 4.6.0-5", v3="3.3.1-1 4.4.0-1 4.6.0-1")
def test_sent_messages_are_repeated_before_unsent_ones(world: World) -> None:
    """Sent messages come first, with DUP and their identifiers; the others follow in order. The RETAIN flags are
    unchanged."""
    receiver, sender = lasting(world), world.client()
    topic = world.topic()
    receiver.subscribe(Subscription(topic, 2, retain_as_published=True))
    wanted = [b"%d" % number for number in range(8)]
    for payload in wanted[:4]:
        sender.publish(topic, payload, 1 + int(payload) % 2, retain=int(payload) % 3 == 0)
    sent = [receiver.expect(Publish) for _ in range(4)]
    receiver.lose()
    for payload in wanted[4:]:
        sender.publish(topic, payload, 1 + int(payload) % 2, retain=int(payload) % 3 == 0)
    world.crash()
    receiver = resume(world, receiver)
    got = [receiver.message() for _ in range(8)]
    assert [(message.payload, message.retain) for message in got] == [(one, int(one) % 3 == 0) for one in wanted]
    assert [(message.packet_id, message.dup) for message in got[:4]] == [(one.packet_id, True) for one in sent]
    receiver.expect_nothing()


@shows(v5="4.8.2-4 4.8.2-6")
def test_qos_2_message_of_a_group_stays_with_its_receiver(world: World) -> None:
    """Also after a crash, whichever member returns first; a message that was refused is not sent again."""
    topic = world.topic()
    members = [lasting(world) for _ in range(2)]
    for member in members:
        member.subscribe(f"$share/g/{topic}")
    sender = world.client()
    for number in range(4):
        sender.publish(topic, b"%d" % number, 2)
    mine = [members[0].expect(Publish) for _ in range(2)]
    theirs = [members[1].expect(Publish) for _ in range(2)]
    members[0].send(Ack(PUBREC, mine[0].packet_id, 0x80))
    members[0].sync()
    sender.publish(world.topic())  # its acknowledgement means that everything before it is on the disk
    world.crash()
    second, first = resume(world, members[1]), resume(world, members[0])
    got = [second.message() for _ in range(2)]
    assert [(one.packet_id, one.payload, one.dup) for one in got] == [
        (one.packet_id, one.payload, True) for one in theirs
    ]
    again = first.message()
    assert (again.packet_id, again.payload, again.dup) == (mine[1].packet_id, mine[1].payload, True)
    for peer in (first, second):
        peer.expect_nothing()


@shows(v5="3.3.1-5 3.3.1-8", v3="3.3.1-5 3.3.1-7 3.3.1-12")
def test_retained_messages_of_every_qos_survive_a_crash(world: World) -> None:
    sender, prefix = world.client(), world.topic()
    for qos in range(3):
        sender.publish(f"{prefix}/{qos}", b"kept", qos, retain=True)
        sender.publish(f"{prefix}/{qos}", b"passing", qos)
    sender.publish(world.topic())  # its acknowledgement means that everything before it is on the disk
    world.crash()
    later = world.client()
    later.subscribe(f"{prefix}/+")
    got = {message.topic: message for message in (later.message() for _ in range(3))}
    assert {topic: (one.payload, one.qos, one.retain) for topic, one in got.items()} == {
        f"{prefix}/{qos}": (b"kept", qos, True) for qos in range(3)
    }
    later.expect_nothing()


@shows(v5="3.4.2-1 3.3.2-5")
def test_queue_limit_counts_messages_from_before_the_crash(world: World) -> None:
    """A queue that was full stays full, except for messages that have expired meanwhile."""
    sleeper, sender = lasting(world), world.client()
    topic = world.topic()
    sleeper.subscribe(topic)
    sleeper.leave()
    for number in range(QUEUE):
        assert sender.publish(topic, b"%d" % number, properties=LONG if number % 2 else SHORT) == 0
    world.crash()
    sender = world.client()
    world.elapse(2)
    for number in range(QUEUE, QUEUE + QUEUE // 2):
        assert sender.publish(topic, b"%d" % number) == 0
    assert sender.publish(topic) == world.full
    sleeper = resume(world, sleeper)
    assert [int(one) for one in sleeper.messages(QUEUE)] == [
        *range(1, QUEUE, 2), *range(QUEUE, QUEUE + QUEUE // 2),
    ]  # fmt: skip
    sleeper.expect_nothing()
