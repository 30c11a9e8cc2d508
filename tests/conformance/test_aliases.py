"""Topic aliases in both directions (MQTT 5.0 section 3.3.2.3.4)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import Ack, Publish
from mesh.wire.properties import Properties
from tests.conformance.peer import Peer
from tests.conformance.world import ALIASES, World, properties
from tests.support.shows import shows


def aliased(alias: int, **fields: object) -> Properties:
    return properties(topic_alias=alias, **fields)


def alias_of(message: Publish) -> int | None:
    return None if message.properties is None else message.properties.topic_alias


# From the client


@shows(v5="3.3.2-12 3.2.2-17")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_server_accepts_every_alias_up_to_its_maximum(world: World, qos: int) -> None:
    receiver, sender = world.client(), world.client()
    told = sender.connack.properties
    assert told is not None
    assert told.topic_alias_maximum == ALIASES
    prefix = world.topic()
    receiver.subscribe(f"{prefix}/#", qos=0)
    for alias in range(1, ALIASES + 1):
        sender.publish(f"{prefix}/{alias}", b"set", qos, properties=aliased(alias))
    for alias in range(1, ALIASES + 1):
        sender.publish("", b"use", qos, properties=aliased(alias, content_type="c"))
    got = [receiver.message() for _ in range(2 * ALIASES)]
    assert [message.topic for message in got] == [f"{prefix}/{alias}" for alias in range(1, ALIASES + 1)] * 2
    assert all(alias_of(message) is None for message in got)
    assert got[-1].properties is not None
    assert got[-1].properties.content_type == "c"


def test_client_may_set_an_alias_again(world: World) -> None:
    receiver, sender = world.client(), world.client()
    one, other = world.topic(), world.topic()
    receiver.subscribe(one, other)
    for topic in (one, "", other, ""):
        sender.publish(topic, properties=aliased(1))
    assert [receiver.message().topic for _ in range(4)] == [one, one, other, other]


@shows(v5="3.3.2-8 3.3.2-9 4.13.1-1")
@pytest.mark.parametrize("alias", [0, ALIASES + 1, 65_535])
@pytest.mark.parametrize("topic", ["a", ""])
def test_alias_above_the_maximum_ends_connection(world: World, alias: int, topic: str) -> None:
    peer = world.client()
    peer.send(Publish(topic, b"x", properties=aliased(alias)))
    peer.expect_end(0x94)


def test_alias_that_was_never_set_ends_connection(world: World) -> None:
    peer = world.client()
    peer.send(Publish("", b"x", properties=aliased(1)))
    peer.expect_end(0x94)


@shows(v5="3.3.2-7")
def test_aliases_end_with_the_connection(world: World) -> None:
    first = world.client(expiry=60)
    first.publish(world.topic(), properties=aliased(1))
    first.leave()
    second = world.client(first.client_id, clean=False, expiry=60)
    second.send(Publish("", b"x", properties=aliased(1)))
    second.expect_end(0x94)


def test_publish_without_topic_and_alias_ends_connection(world: World) -> None:
    peer = world.client()
    peer.send(Publish("", b"x"))
    peer.expect_end(0x82)


# To the client


def receive(world: World, maximum: int | None, topics: int, **fields: int) -> tuple[Peer, list[Publish]]:
    """A client with this maximum, and two messages that it received from each topic."""
    if maximum is not None:
        fields["topic_alias_maximum"] = maximum
    receiver, sender = world.client(**fields), world.client()
    prefix = world.topic()
    receiver.subscribe(f"{prefix}/#", qos=1)
    for number in range(2 * topics):
        sender.publish(f"{prefix}/{number % topics}", b"x")
    return receiver, [receiver.message() for _ in range(2 * topics)]


@shows(v5="3.1.2-26 3.3.2-11 3.3.2-8")
@pytest.mark.parametrize("maximum", [1, 3])
def test_server_uses_no_alias_above_the_clients_maximum(world: World, maximum: int) -> None:
    _, got = receive(world, maximum, 5)
    first, second = got[:5], got[5:]
    assert [alias_of(message) for message in first] == [*range(1, maximum + 1), *[None] * (5 - maximum)]
    assert all(message.topic for message in first)
    assert [alias_of(message) for message in second] == [alias_of(message) for message in first]
    assert [message.topic for message in second] == [*[""] * maximum, *(message.topic for message in first[maximum:])]


@shows(v5="3.1.2-27")
@pytest.mark.parametrize("maximum", [None, 0])
def test_client_without_alias_maximum_gets_no_alias(world: World, maximum: int | None) -> None:
    _, got = receive(world, maximum, 2)
    assert all(alias_of(message) is None and message.topic for message in got)


@shows(v5="3.3.2-7")
def test_new_connection_has_new_aliases(world: World) -> None:
    topic = world.topic()
    first = world.client(expiry=60, topic_alias_maximum=5)
    first.subscribe(topic)
    sender = world.client()
    sender.publish(topic)
    assert first.message().topic == topic
    first.leave()
    second = world.client(first.client_id, clean=False, expiry=60, topic_alias_maximum=5)
    sender.publish(topic)
    message = second.message()
    assert (message.topic, alias_of(message)) == (topic, 1)


def test_too_large_message_sets_no_alias(world: World) -> None:
    topic = world.topic()
    peer, sender = world.client(topic_alias_maximum=5, maximum_packet_size=100), world.client()
    peer.subscribe(topic)
    sender.publish(topic, b"y" * 200)
    sender.publish(topic, b"x")
    message = peer.message()
    assert (message.topic, alias_of(message)) == (topic, 1)


def test_repeated_message_has_its_topic_name(world: World) -> None:
    """A message sent again on a new connection does not use the aliases of the old one."""
    topic = world.topic()
    first = world.client(expiry=60, topic_alias_maximum=5)
    first.subscribe(topic)
    sender = world.client()
    for _ in range(2):
        sender.publish(topic)
    assert [first.find(Publish).topic for _ in range(2)] == [topic, ""]
    first.lose()
    second = world.client(first.client_id, clean=False, expiry=60)
    assert [second.message().topic for _ in range(2)] == [topic, topic]
    assert not any(isinstance(packet, Ack) for packet in second.sync())


@shows(v5="3.3.2-12")
def test_refused_topic_still_sets_its_alias(world: World) -> None:
    """The alias belongs to the connection, not to the message."""
    peer = world.client()
    assert peer.publish("refused/x", properties=aliased(1)) == 0x87
    assert peer.publish("", properties=aliased(1)) == 0x87
    topic = world.topic()
    peer.subscribe(topic)
    peer.publish(topic, properties=aliased(1))
    peer.publish("", properties=aliased(1))
    assert [peer.message().topic for _ in range(2)] == [topic, topic]


@shows(v5="3.3.2-7 3.3.2-12 3.3.1-5")
def test_stored_message_keeps_its_topic_name(world: World) -> None:
    """A retained or queued message has no alias: an alias is valid on one connection only."""
    sleeper, sender, topic = world.client(expiry=60), world.client(), world.topic()
    sleeper.subscribe(topic)
    sleeper.leave()
    sender.publish(topic, b"1", properties=aliased(2))
    sender.publish("", b"2", 1, True, properties=aliased(2))
    sender.leave()
    sleeper = world.client(sleeper.client_id, clean=False, expiry=60)
    assert [(message.topic, message.payload) for message in (sleeper.message(), sleeper.message())] == [
        (topic, b"1"), (topic, b"2"),
    ]  # fmt: skip
    later = world.client()
    later.subscribe(topic)
    assert (later.message().topic, later.sync()) == (topic, [])
