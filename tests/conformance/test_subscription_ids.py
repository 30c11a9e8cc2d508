"""Subscription identifiers of retained messages, groups and sessions (MQTT 5.0 section 3.8.2.1.2)."""

from __future__ import annotations

from mesh.wire.packets import Publish
from tests.conformance.world import World
from tests.support.shows import shows


def identifiers(message: Publish) -> list[int]:
    return [] if message.properties is None else sorted(message.properties.subscription_ids)


@shows(v5="3.3.4-3 3.3.4-5")
def test_retained_message_has_the_identifier_of_its_subscription(world: World) -> None:
    """It has no identifier of other matching subscriptions, because the server sends it for this one."""
    peer = world.client()
    topic = world.topic("x")
    peer.publish(topic, b"kept", retain=True)
    for filter, identifier in ((topic, 3), (topic.replace("/x", "/#"), 4)):
        peer.subscribe(filter, identifier=identifier)
        message = peer.message()
        assert (message.retain, identifiers(message)) == (True, [identifier])
    peer.expect_nothing()


@shows(v5="3.3.4-3 3.3.4-4")
def test_identifier_applies_to_all_filters_of_a_packet(world: World) -> None:
    peer = world.client()
    topic = world.topic("x")
    peer.subscribe(topic, topic.replace("/x", "/+"), topic.replace("/x", "/y"), identifier=300)
    peer.publish(topic)
    assert set(identifiers(peer.message())) == {300}
    peer.publish(topic.replace("/x", "/y"))
    assert set(identifiers(peer.message())) == {300}
    peer.expect_nothing()


@shows(v5="3.3.4-3 3.3.4-5")
def test_each_group_copy_has_its_own_identifier(world: World) -> None:
    """A client with two shared subscriptions and one of its own gets a copy for each."""
    peer = world.client()
    topic = world.topic()
    for identifier, filter in enumerate((topic, f"$share/g/{topic}", f"$share/h/{topic}"), 1):
        peer.subscribe(filter, identifier=identifier)
    peer.publish(topic)
    assert sorted(identifiers(peer.message()) for _ in range(3)) == [[1], [2], [3]]
    peer.expect_nothing()


@shows(v5="3.3.4-3 3.3.4-5")
def test_redistributed_message_has_its_new_members_identifier(world: World) -> None:
    topic = world.topic()
    first, second = world.client(), world.client()
    first.subscribe(f"$share/g/{topic}", identifier=1)
    second.subscribe(f"$share/g/{topic}", identifier=2)
    for _ in range(2):
        world.client().publish(topic)
    assert identifiers(first.expect(Publish)) == [1]
    assert identifiers(second.message()) == [2]
    first.lose()
    assert identifiers(second.message()) == [2]


@shows(v5="3.3.4-3 3.1.2-5")
def test_identifiers_belong_to_the_session(world: World) -> None:
    """A queued message has the identifier from when it was queued, a new message the current one."""
    peer, sender = world.client(expiry=60), world.client()
    topic = world.topic()
    peer.subscribe(topic, identifier=1)
    peer.leave()
    sender.publish(topic, b"queued")
    peer = world.client(peer.client_id, clean=False, expiry=60)
    assert identifiers(peer.message()) == [1]
    sender.publish(topic, b"new")
    assert identifiers(peer.message()) == [1]
    peer.subscribe(topic, identifier=2)
    sender.publish(topic, b"newer")
    assert identifiers(peer.message()) == [2]
