"""Options of overlapping, replaced and resumed subscriptions (MQTT 5.0 section 3.8.3.1)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import Publish, SubAck, Subscribe, Subscription
from tests.conformance.clients import PROTOCOLS, will
from tests.conformance.world import World
from tests.support.shows import shows


@shows(v5="3.8.3-3 3.3.4-2 3.3.4-3")
@pytest.mark.parametrize("first", [True, False])
def test_no_local_applies_to_its_own_subscription_only(world: World, first: bool) -> None:
    """The client's own message comes for the other subscription only, with its QoS and identifier."""
    peer, other = world.client(), world.client()
    topic = world.topic("x")
    silent = (Subscription(topic, 2, no_local=True), 1)
    wide = (Subscription(topic.replace("/x", "/+"), 0), 2)
    for subscription, identifier in (silent, wide) if first else (wide, silent):
        peer.subscribe(subscription, identifier=identifier)
    for sender, qos, identifiers in ((peer, 0, [2]), (other, 2, [1, 2])):
        sender.publish(topic, b"x", 2)
        message = peer.message()
        assert message.properties is not None
        assert (message.qos, sorted(message.properties.subscription_ids)) == (qos, identifiers)
    peer.expect_nothing()


@shows(v5="3.8.3-3")
def test_no_local_applies_to_the_will(world: World) -> None:
    topic = world.topic()
    peer, other = world.client(expiry=60, will=will(topic, qos=1)), world.client()
    peer.subscribe(Subscription(topic, 1, no_local=True))
    other.subscribe(Subscription(topic, 1, no_local=True))
    peer.lose()
    assert other.message().payload == b"will"
    world.client(peer.client_id, clean=False, expiry=60).expect_nothing()


@shows(v5="3.8.4-3 3.8.3-3 3.3.1-12 3.3.1-13")
def test_new_subscription_replaces_all_options(world: World) -> None:
    peer = world.client()
    topic = world.topic()
    peer.subscribe(Subscription(topic, 2, no_local=True, retain_as_published=False))
    peer.publish(topic, b"silent", 2, retain=True)
    peer.expect_nothing()
    peer.subscribe(Subscription(topic, 1, no_local=False, retain_as_published=True, retain_handling=2))
    peer.publish(topic, b"flagged", 2, retain=True)
    message = peer.message()
    assert (message.payload, message.qos, message.retain) == (b"flagged", 1, True)
    peer.subscribe(Subscription(topic, 0, no_local=False, retain_as_published=False, retain_handling=2))
    peer.publish(topic, b"plain", 2, retain=True)
    message = peer.message()
    assert (message.payload, message.qos, message.retain) == (b"plain", 0, False)
    peer.expect_nothing()


@shows(v5="3.8.4-5 3.8.4-3 3.8.4-6", v3="3.8.4-4 3.8.4-3 3.8.4-5")
@PROTOCOLS
def test_last_of_two_equal_filters_in_a_packet_applies(world: World, protocol: int) -> None:
    """As with two packets, the second subscription replaces the first."""
    peer = world.client(protocol=protocol)
    topic = world.topic()
    peer.send(Subscribe(7, [Subscription(topic, 2), Subscription(topic, 0)]))
    assert peer.expect(SubAck).reasons == [2, 0]
    peer.publish(topic, b"x", 2)
    assert peer.message().qos == 0
    peer.expect_nothing()


@shows(v5="3.3.1-10")
def test_subscription_of_a_resumed_session_is_not_new(world: World) -> None:
    """Nor is it new with other options or another identifier."""
    peer, topic = world.client(expiry=60), world.topic()
    peer.subscribe(topic, qos=1)
    peer.leave()
    world.client().publish(topic, b"kept", 0, retain=True)
    peer = world.client(peer.client_id, clean=False, expiry=60)
    peer.subscribe(Subscription(topic, 2, retain_as_published=True, retain_handling=1), identifier=9)
    peer.expect_nothing()
    peer.subscribe(Subscription(topic.replace(topic, f"{topic}/#"), 2, retain_handling=1))
    assert peer.message().payload == b"kept"
    peer.expect_nothing()


@shows(v5="3.3.1-9 3.3.1-11 3.8.4-5")
def test_each_filter_has_its_own_retain_handling(world: World) -> None:
    peer, topic = world.client(), world.topic()
    for name in "abc":
        peer.publish(f"{topic}/{name}", name.encode(), retain=True)
    handlings = zip("abc", (2, 0, 1), strict=True)
    peer.subscribe(*(Subscription(f"{topic}/{name}", 1, retain_handling=one) for name, one in handlings))
    assert sorted(peer.messages(2)) == [b"b", b"c"]
    peer.expect_nothing()


@shows(v5="3.8.4-8 3.3.1-5", v3="3.8.4-6 3.3.1-5")
@PROTOCOLS
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_retained_messages_come_at_the_lower_of_both_qos(world: World, protocol: int, granted: int) -> None:
    peer, topic = world.client(protocol=protocol), world.topic()
    for qos in range(3):
        peer.publish(f"{topic}/{qos}", b"x", qos, retain=True)
    peer.subscribe(f"{topic}/+", qos=granted)
    got = {message.topic: message.qos for message in (peer.message() for _ in range(3))}
    assert got == {f"{topic}/{qos}": min(qos, granted) for qos in range(3)}


@shows(v5="3.3.1-8 3.3.1-12", v3="3.3.1-8 3.3.1-9")
@PROTOCOLS
def test_queued_message_has_no_retain_flag(world: World, protocol: int) -> None:
    """RETAIN marks a message sent because of a new subscription; a queued message is not such a message."""
    peer = world.client(protocol=protocol, clean=False, expiry=60 if protocol == 5 else None)
    topic = world.topic()
    peer.subscribe(topic, qos=1)
    peer.leave()
    world.client().publish(topic, b"kept", 1, retain=True)
    peer = world.client(peer.client_id, protocol, clean=False, expiry=60 if protocol == 5 else None)
    assert not peer.expect(Publish).retain
    peer.subscribe(topic, qos=1)
    assert peer.find(Publish).retain
