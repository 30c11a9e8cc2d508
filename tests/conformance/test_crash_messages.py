"""What is left of messages when the server was killed: all that was acknowledged, as it was, while it lives."""

from __future__ import annotations

import pytest

from mesh.wire.packets import PUBACK, Ack, Publish
from tests.conformance.shows import shows
from tests.conformance.test_crash_sessions import back, lasting
from tests.conformance.world import World, properties

FIELDS = {
    "payload_format": 1, "content_type": "text", "response_topic": "answers", "correlation_data": b"\0\1",
    "user": [("b", "1"), ("a", "2"), ("b", "0")],
}  # fmt: skip


@shows(v5="3.3.2-4 3.3.2-5 3.3.2-6 3.3.2-15 3.3.2-16 3.3.2-17 3.3.2-18 3.3.2-20 4.6.0-5")
def test_what_waits_for_a_client(world: World) -> None:
    """Its order, properties, subscription identifiers and expiry."""
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
    sleeper = back(world, sleeper)
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
def test_retained_messages(world: World) -> None:
    """The last of each topic, but for what was removed and what has expired meanwhile."""
    sender = world.client()
    prefix = world.topic()
    for name, payload, expiry in (
        ("plain", b"old", None), ("plain", b"new", None), ("removed", b"x", None), ("short", b"x", 1),
        ("long", b"x", 100),
    ):  # fmt: skip
        fields = dict(FIELDS) if expiry is None else {**FIELDS, "message_expiry": expiry}
        sender.publish(f"{prefix}/{name}", payload, 1, retain=True, properties=properties(**fields))
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


def test_members_of_a_group(world: World) -> None:
    """What waited for a member that does not come back goes to the one that does."""
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
    again = back(world, members[0])
    seen = sorted(int(payload) for payload in again.messages(9))
    assert sorted([int(got[0].payload), *seen]) == list(range(10))
    again.expect_nothing()


@pytest.mark.parametrize("qos", [1, 2])
def test_all_that_was_acknowledged_until_the_very_end(world: World, qos: int) -> None:
    """Killed at once after the last acknowledgement."""
    sleeper, sender = lasting(world), world.client()
    topic = world.topic()
    sleeper.subscribe(topic)
    sleeper.leave()
    for number in range(50):
        assert sender.publish(topic, b"%d" % number, qos) == 0
    world.crash()
    sleeper = back(world, sleeper)
    assert sleeper.messages(50) == [b"%d" % number for number in range(50)]
    sleeper.expect_nothing()
