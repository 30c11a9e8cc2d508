"""Retained messages (MQTT 5.0 and 3.1.1 section 3.3.1.3)."""

from __future__ import annotations

import pytest

from tests.conformance.clients import PROTOCOLS
from tests.conformance.world import IN_FLIGHT, QUEUE, World, properties
from tests.support.shows import shows


@shows(v5="3.3.1-5 3.3.1-9", v3="3.3.1-5 3.3.1-6 3.3.1-8")
@PROTOCOLS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_new_subscriber_gets_the_last_retained_message(world: World, protocol: int, qos: int) -> None:
    sender = world.client(protocol=protocol)
    topic = world.topic("a")
    for payload in (b"old", b"new"):
        sender.publish(topic, payload, qos, retain=True)
    later = world.client(protocol=protocol)
    later.subscribe(topic.replace("/a", "/#"))
    message = later.message()
    assert (message.payload, message.qos, message.retain, message.dup) == (b"new", qos, True, False)
    later.expect_nothing()


@shows(v5="3.3.1-12", v3="3.3.1-9")
@PROTOCOLS
def test_existing_subscriber_gets_the_message_without_retain(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    topic = world.topic()
    peer.subscribe(topic)
    peer.publish(topic, b"x", retain=True)
    assert not peer.message().retain


@shows(v5="3.3.1-6 3.3.1-7", v3="3.3.1-10 3.3.1-11")
@PROTOCOLS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_empty_message_is_delivered_and_removes_the_retained_one(world: World, protocol: int, qos: int) -> None:
    peer = world.client(protocol=protocol)
    topic = world.topic()
    peer.publish(topic, b"x", 1, retain=True)
    peer.subscribe(topic)
    assert peer.message().payload == b"x"
    peer.publish(topic, b"", qos, retain=True)
    assert peer.message().payload == b""
    later = world.client(protocol=protocol)
    later.subscribe(topic)
    later.expect_nothing()


@shows(v5="3.3.1-8", v3="3.3.1-12")
@PROTOCOLS
def test_message_without_retain_keeps_the_retained_one(world: World, protocol: int) -> None:
    sender = world.client(protocol=protocol)
    topic = world.topic()
    sender.publish(topic, b"kept", retain=True)
    sender.publish(topic, b"passing")
    sender.publish(topic, b"")
    later = world.client(protocol=protocol)
    later.subscribe(topic)
    assert later.message().payload == b"kept"
    later.expect_nothing()


@shows(v3="3.3.1-7")
@PROTOCOLS
def test_qos_0_message_replaces_the_retained_one(world: World, protocol: int) -> None:
    sender = world.client(protocol=protocol)
    topic = world.topic()
    sender.publish(topic, b"old", 2, retain=True)
    sender.publish(topic, b"new", 0, retain=True)
    later = world.client(protocol=protocol)
    later.subscribe(topic)
    message = later.message()
    assert (message.payload, message.qos) == (b"new", 0)


@shows(v5="3.3.2-5 3.3.2-6")
def test_retained_message_expires(world: World) -> None:
    sender = world.client()
    short, long = world.topic(), world.topic()
    for qos in range(3):
        sender.publish(f"{short}/{qos}", b"x", qos, retain=True, properties=properties(message_expiry=1))
    sender.publish(long, b"x", retain=True, properties=properties(message_expiry=100))
    world.elapse(1.2)
    later = world.client()
    later.subscribe(f"{short}/+", long)
    message = later.message()
    assert message.topic == long
    assert message.properties is not None
    assert message.properties.message_expiry in (97, 98, 99)
    later.expect_nothing()


def test_retained_message_keeps_its_properties(world: World) -> None:
    sender = world.client()
    topic = world.topic()
    pairs = [("b", "1"), ("a", "2")]
    sender.publish(topic, b"x", retain=True, properties=properties(user=pairs, content_type="c"))
    later = world.client()
    later.subscribe(topic, identifier=5)
    got = later.message().properties
    assert got is not None
    assert (got.user, got.content_type, got.subscription_ids) == (pairs, "c", [5])


def test_shared_subscription_gets_no_retained_message(world: World) -> None:
    peer = world.client()
    topic = world.topic()
    peer.publish(topic, b"x", retain=True)
    peer.subscribe(f"$share/g/{topic}")
    peer.expect_nothing()


@shows(v5="3.3.1-5 3.3.2-5")
def test_expiry_of_the_last_message_applies(world: World) -> None:
    """The expiry of the message before it has no effect."""
    sender = world.client()
    prefix = world.topic()
    for name, expiries in (("longer", (1, None)), ("shorter", (None, 1)), ("again", (1, 100))):
        for payload, expiry in zip((b"old", b"new"), expiries, strict=True):
            fields = None if expiry is None else properties(message_expiry=expiry)
            sender.publish(f"{prefix}/{name}", payload, 0, retain=True, properties=fields)
    world.elapse(1.2)
    later = world.client()
    later.subscribe(f"{prefix}/+")
    got = {(message.topic.split("/")[1], message.payload) for message in (later.message() for _ in range(2))}
    assert got == {("longer", b"new"), ("again", b"new")}
    later.expect_nothing()


@shows(v3="3.1.2-7", v5="3.3.1-5")
@PROTOCOLS
def test_retained_message_outlives_its_publishers_session(world: World, protocol: int) -> None:
    sender = world.client(protocol=protocol)
    topic = world.topic()
    sender.publish(topic, b"kept", retain=True)
    sender.leave()
    world.client(sender.client_id, protocol, clean=True).leave()
    later = world.client(protocol=protocol)
    later.subscribe(topic)
    assert later.message().payload == b"kept"


@shows(v5="3.3.1-9", v3="3.3.1-6")
@PROTOCOLS
def test_only_matching_retained_messages_are_sent(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    prefix = world.topic()
    for topic in ("a", "a/b", "a/b/c", "/b", "a/"):
        peer.publish(f"{prefix}/{topic}", topic.encode(), retain=True)
    for filter, topics in (
        ("a", ["a"]), ("a/#", ["a", "a/", "a/b", "a/b/c"]), ("a/+", ["a/", "a/b"]), ("+/b", ["/b", "a/b"]),
        ("+/+/+", ["a/b/c"]), ("b/#", []),
    ):  # fmt: skip
        peer.subscribe(f"{prefix}/{filter}")
        assert sorted(peer.messages(len(topics))) == [topic.encode() for topic in topics]
        peer.expect_nothing()


@shows(v5="3.3.1-9", v3="3.3.1-6")
@PROTOCOLS
def test_more_retained_messages_than_a_queue_holds_are_sent(world: World, protocol: int) -> None:
    """The queue limit of a session does not apply to retained messages, which are stored already."""
    sender, peer = world.client(), world.client(protocol=protocol)
    prefix = world.topic()
    count = QUEUE + IN_FLIGHT + 5
    for number in range(count):
        sender.publish(f"{prefix}/{number}", b"x", retain=True)
    peer.subscribe(f"{prefix}/+", qos=1)
    for number in range(count):  # the oldest first
        message = peer.message()
        assert (message.topic, message.retain) == (f"{prefix}/{number}", True)
        peer.acknowledge(message)
    peer.expect_nothing()
    for number in range(count):  # so that other tests do not receive them
        sender.publish(f"{prefix}/{number}", b"", 0, retain=True)
