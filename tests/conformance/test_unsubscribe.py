"""UNSUBSCRIBE and its answer (MQTT 5.0 and 3.1.1 sections 3.10 and 3.11)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import Publish, SubAck, Unsubscribe
from tests.conformance.clients import PROTOCOLS, lasting, resume
from tests.conformance.world import World
from tests.support.shows import shows


@shows(v5="3.10.4-2 3.10.4-1", v3="3.10.4-2 3.10.4-1")
@PROTOCOLS
def test_unsubscribe_applies_to_the_session(world: World, protocol: int) -> None:
    """The session of a disconnected client queues nothing for the ended subscription."""
    peer, sender, topic = lasting(world, protocol), world.client(), world.topic()
    peer.subscribe(f"{topic}/a", f"{topic}/b")
    peer.unsubscribe(f"{topic}/a")
    peer.leave()
    sender.publish(f"{topic}/a")
    sender.publish(f"{topic}/b")
    peer = resume(world, peer)
    assert peer.message().topic == f"{topic}/b"
    peer.expect_nothing()


@shows(v5="3.10.4-4 3.10.4-5 3.10.4-6 3.11.3-1 3.11.3-2", v3="3.10.4-4 3.10.4-5 3.10.4-6")
@PROTOCOLS
def test_repeated_filter_gets_no_subscription_existed(world: World, protocol: int) -> None:
    peer, topic = world.client(protocol=protocol), world.topic()
    peer.subscribe(topic)
    for codes in ([0, 0x11], [0x11, 0x11]):
        peer.send(Unsubscribe(5, [topic, topic]))
        answer = peer.expect(SubAck)
        assert (answer.packet_id, answer.reasons) == (5, codes if protocol == 5 else [])
    peer.publish(topic)
    peer.expect_nothing()


@shows(v5="3.10.4-1", v3="3.10.4-1")
@PROTOCOLS
@pytest.mark.parametrize("filter", ["$share/g/{}", "$share/G/{}", "{}/", "/{}", "{}/#", "+"])
def test_unsubscribe_needs_exactly_the_same_filter(world: World, protocol: int, filter: str) -> None:
    peer, topic = world.client(protocol=protocol), world.topic()
    peer.subscribe(topic)
    assert peer.unsubscribe(filter.format(topic)) == ([0x11] if protocol == 5 else [])
    peer.publish(topic, b"still")
    assert peer.message().payload == b"still"


@shows(v5="3.10.4-1 3.10.4-2")
def test_unsubscribe_keeps_the_clients_other_subscriptions(world: World) -> None:
    """A client that leaves a group stays in its other group and keeps its plain subscription."""
    peer, topic = world.client(), world.topic()
    filters = (topic, f"$share/g/{topic}", f"$share/h/{topic}")
    peer.subscribe(*filters)
    left = 3
    for filter in filters:
        peer.publish(topic)
        peer.messages(left)
        peer.expect_nothing()
        assert peer.unsubscribe(filter) == [0]
        left -= 1
    assert peer.publish(topic) == 0x10


@shows(v5="3.10.4-2 3.8.4-1", v3="3.10.4-2")
@PROTOCOLS
def test_new_subscription_gets_no_missed_messages(world: World, protocol: int) -> None:
    """Of the messages published between, only the retained one comes."""
    peer, topic = world.client(protocol=protocol), world.topic()
    peer.subscribe(topic)
    peer.unsubscribe(topic)
    peer.publish(topic, b"missed")
    peer.publish(topic, b"kept", retain=True)
    peer.subscribe(topic)
    message = peer.message()
    assert (message.payload, message.retain) == (b"kept", True)
    peer.expect_nothing()


@shows(
    v5="3.10.4-1 3.10.4-2 3.10.4-4 3.10.4-5 3.10.4-6 3.11.3-1 3.11.3-2",
    v3="3.10.4-1 3.10.4-2 3.10.4-4 3.10.4-5 3.10.4-6",
)
@PROTOCOLS
def test_unsuback_has_one_reason_code_per_filter_in_order(world: World, protocol: int) -> None:
    """A filter matches a subscription only if all characters are equal."""
    peer = world.client(protocol=protocol)
    topic = world.topic("a")
    prefix = topic.split("/")[0]
    peer.subscribe(topic, f"{prefix}/+", f"{prefix}/b")
    peer.send(Unsubscribe(9, [topic, f"{prefix}/#", topic.upper(), f"{prefix}/b"]))
    answer = peer.expect(SubAck)
    assert (answer.packet_id, answer.reasons) == (9, [0, 0x11, 0x11, 0] if protocol == 5 else [])
    peer.publish(topic, b"by the other filter")
    assert peer.message().payload == b"by the other filter"
    peer.unsubscribe(f"{prefix}/+")
    peer.publish(topic)
    peer.expect_nothing()


@shows(v5="3.10.4-3", v3="3.10.4-3")
@PROTOCOLS
@pytest.mark.parametrize("qos", [1, 2])
def test_delivery_begun_before_unsubscribe_is_completed(world: World, protocol: int, qos: int) -> None:
    expiry = 60 if protocol == 5 else None
    peer, sender = world.client(protocol=protocol, clean=False, expiry=expiry), world.client()
    topic = world.topic()
    peer.subscribe(topic)
    sender.publish(topic, b"x", qos)
    first = peer.find(Publish)
    peer.unsubscribe(topic)
    peer.lose()
    peer = world.client(peer.client_id, protocol, clean=False, expiry=expiry)
    again = peer.find(Publish)
    assert (again.packet_id, again.dup) == (first.packet_id, True)
    peer.acknowledge(again)
    peer.expect_nothing()


@shows(v5="3.11.2-1 3.11.2-2 3.1.2-24")
def test_unsuback_keeps_to_the_clients_maximum_packet_size(world: World) -> None:
    peer = world.client(maximum_packet_size=30)
    peer.send(Unsubscribe(1, ["nothing"]))
    answer = peer.expect(SubAck)
    assert (answer.reasons, answer.properties) == ([0x11], None)
    peer.send(Unsubscribe(2, [f"nothing/{number}" for number in range(40)]))
    peer.expect_end(0x95)
