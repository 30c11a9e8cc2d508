"""Subscription identifiers beyond single messages: retained ones, groups, sessions (MQTT 5.0 section 3.8.2.1.2)."""

from __future__ import annotations

from mesh.wire.packets import Publish
from tests.conformance.world import World
from tests.support.shows import shows


def identifiers(message: Publish) -> list[int]:
    return [] if message.properties is None else sorted(message.properties.subscription_ids)


@shows(v5="3.3.4-3 3.3.4-5")
def test_a_retained_message_bears_that_of_its_subscription(world: World) -> None:
    """Not those of others that match it as well, for it comes by this one."""
    peer = world.client()
    topic = world.topic("x")
    peer.publish(topic, b"kept", retain=True)
    for filter, identifier in ((topic, 3), (topic.replace("/x", "/#"), 4)):
        peer.subscribe(filter, identifier=identifier)
        message = peer.message()
        assert (message.retain, identifiers(message)) == (True, [identifier])
    peer.expect_nothing()


@shows(v5="3.3.4-3 3.3.4-4")
def test_one_for_all_filters_of_a_packet(world: World) -> None:
    peer = world.client()
    topic = world.topic("x")
    peer.subscribe(topic, topic.replace("/x", "/+"), topic.replace("/x", "/y"), identifier=300)
    peer.publish(topic)
    assert set(identifiers(peer.message())) == {300}
    peer.publish(topic.replace("/x", "/y"))
    assert set(identifiers(peer.message())) == {300}
    peer.expect_nothing()


@shows(v5="3.3.4-3 3.3.4-5")
def test_each_way_of_a_client_has_its_own(world: World) -> None:
    """A client that is in two groups and subscribed by itself as well gets a copy by each of them."""
    peer = world.client()
    topic = world.topic()
    for identifier, filter in enumerate((topic, f"$share/g/{topic}", f"$share/h/{topic}"), 1):
        peer.subscribe(filter, identifier=identifier)
    peer.publish(topic)
    assert sorted(identifiers(peer.message()) for _ in range(3)) == [[1], [2], [3]]
    peer.expect_nothing()


@shows(v5="3.3.4-3 3.3.4-5")
def test_a_message_that_changes_its_member_changes_its_identifier(world: World) -> None:
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
def test_they_belong_to_the_session(world: World) -> None:
    """What was queued has those of its time, and what comes now has those of now."""
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
