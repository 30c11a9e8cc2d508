"""UNSUBSCRIBE and its answer (MQTT 5.0 and 3.1.1 sections 3.10 and 3.11)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import Publish, SubAck, Unsubscribe
from tests.conformance.clients import PROTOCOLS, lasting, resume
from tests.conformance.world import World
from tests.support.shows import shows


@shows(v5="3.10.4-2 3.10.4-1", v3="3.10.4-2 3.10.4-1")
@PROTOCOLS
def test_it_holds_for_the_session(world: World, protocol: int) -> None:
    """What was queued before may still come; afterwards nothing is."""
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
def test_twice_in_a_packet_and_once_more(world: World, protocol: int) -> None:
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
def test_only_the_very_same_characters_are_meant(world: World, protocol: int, filter: str) -> None:
    peer, topic = world.client(protocol=protocol), world.topic()
    peer.subscribe(topic)
    assert peer.unsubscribe(filter.format(topic)) == ([0x11] if protocol == 5 else [])
    peer.publish(topic, b"still")
    assert peer.message().payload == b"still"


@shows(v5="3.10.4-1 3.10.4-2")
def test_one_way_of_several(world: World) -> None:
    """Who leaves a group stays in another one, and keeps its own subscription."""
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
def test_subscribing_anew_begins_anew(world: World, protocol: int) -> None:
    """What was published between is not made up for, but for what is retained."""
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
def test_unsubscribing(world: World, protocol: int) -> None:
    """Only a filter with the same characters is meant, however alike others are."""
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
def test_what_has_begun_is_completed(world: World, protocol: int, qos: int) -> None:
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
def test_an_unsuback_is_no_larger_than_its_client_takes(world: World) -> None:
    peer = world.client(maximum_packet_size=30)
    peer.send(Unsubscribe(1, ["nothing"]))
    answer = peer.expect(SubAck)
    assert (answer.reasons, answer.properties) == ([0x11], None)
    peer.send(Unsubscribe(2, [f"nothing/{number}" for number in range(40)]))
    peer.expect_end(0x95)
