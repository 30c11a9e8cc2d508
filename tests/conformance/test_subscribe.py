"""SUBSCRIBE and its answer (MQTT 5.0 and 3.1.1 sections 3.8 and 3.9)."""

from __future__ import annotations

import pytest

from mesh.wire.packets import Ack, Publish, SubAck, Subscribe, Subscription
from tests.conformance import raw
from tests.conformance.broker_world import BrokerWorld
from tests.conformance.clients import PROTOCOLS
from tests.conformance.world import SUBSCRIPTIONS, World, properties
from tests.support.shows import shows


@shows(
    v5="3.8.4-1 3.8.4-2 3.8.4-5 3.8.4-6 3.8.4-7 3.9.3-1 3.9.3-2 2.2.1-6",
    v3="3.8.4-1 3.8.4-2 3.8.4-4 3.8.4-5 3.9.3-1 3.9.3-2 2.3.1-7",
)
@PROTOCOLS
def test_suback_has_one_reason_code_per_filter_in_order(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    topic = world.topic()
    wanted = [Subscription(f"{topic}/{qos}", qos) for qos in (2, 0, 1)]
    peer.send(Subscribe(77, [*wanted[:1], Subscription("refused/x", 1), *wanted[1:]]))
    answer = peer.expect(SubAck)
    assert (answer.packet_id, answer.reasons) == (77, [2, 0x87 if protocol == 5 else 0x80, 0, 1])
    for qos in (2, 0, 1):
        peer.publish(f"{topic}/{qos}", b"x", 2)
        assert peer.message().qos == qos
    peer.expect_nothing()


@shows(v5="3.8.3-2 3.10.3-2", v3="3.8.3-3 3.10.3-2")
@PROTOCOLS
@pytest.mark.parametrize("first", [0x82, 0xA2])
def test_packet_without_a_filter_ends_connection(world: World, protocol: int, first: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(raw.packet(first, b"\x00\x01" + raw.no_properties(protocol)))
    peer.expect_end(0x82)


@shows(v5="3.8.3-5", v3="3.8.3-4")
@pytest.mark.parametrize("protocol", [4, 5])  # 3.1 ignores these bits
@pytest.mark.parametrize("options", [0x03, 0x40, 0x80, 0xC1])
def test_wrong_subscription_options_end_connection(world: World, protocol: int, options: int) -> None:
    peer = world.client(protocol=protocol)
    peer.send(raw.subscribe(b"a", protocol, options))
    peer.expect_end(0x82 if options == 0x03 else 0x81)  # a QoS of 3 is well formed


def test_retain_handling_3_ends_connection(world: World) -> None:
    peer = world.client()
    peer.send(raw.subscribe(b"a", 5, 0x30))
    peer.expect_end(0x82)


@shows(v5="3.8.4-3 3.8.4-4", v3="3.8.4-3")
@PROTOCOLS
def test_same_filter_replaces_the_subscription(world: World, protocol: int) -> None:
    peer, sender = world.client(protocol=protocol), world.client()
    topic = world.topic()
    sender.publish(topic, b"kept", 1, retain=True)
    for qos in (0, 1, 2):
        assert peer.subscribe(topic, qos=qos) == [qos]
        assert (peer.message().payload, peer.unsubscribe(world.topic())) == (b"kept", [0x11] if protocol == 5 else [])
    sender.publish(topic, b"once", 2)
    message = peer.message()
    assert (message.payload, message.qos) == (b"once", 2)
    peer.expect_nothing()


@shows(v5="3.8.4-4", v3="3.8.4-3")
@PROTOCOLS
def test_replacing_a_subscription_loses_no_message(world: World, protocol: int) -> None:
    peer, sender = world.client(protocol=protocol), world.client(protocol=protocol)
    topic = world.topic()
    peer.subscribe(topic, qos=1)
    for number in range(10):
        sender.publish(topic, b"%d" % number)
        peer.subscribe(topic, qos=1)
    assert peer.messages(10) == [b"%d" % number for number in range(10)]


@shows(v5="3.8.3-3")
def test_no_local_suppresses_the_clients_own_messages(world: World) -> None:
    peer, other = world.client(), world.client()
    topic = world.topic()
    peer.subscribe(Subscription(topic, 1, no_local=True))
    other.subscribe(Subscription(topic, 1, no_local=True))
    peer.publish(topic, b"mine")
    assert other.message().payload == b"mine"
    peer.expect_nothing()
    other.publish(topic, b"theirs")
    assert peer.message().payload == b"theirs"
    other.expect_nothing()


@shows(v5="3.8.3-3")
def test_no_local_applies_across_connections(world: World) -> None:
    first = world.client(expiry=60)
    topic = world.topic()
    first.subscribe(Subscription(topic, 1, no_local=True))
    first.leave()
    second = world.client(first.client_id, clean=False, expiry=60)
    second.publish(topic)
    second.expect_nothing()


@shows(v5="3.8.3-4")
def test_no_local_on_a_shared_subscription_is_an_error(world: World) -> None:
    peer = world.client()
    peer.send(Subscribe(1, [Subscription("$share/g/a", 1, no_local=True)]))
    peer.expect_end(0x82)


@shows(v5="3.3.1-12 3.3.1-13", v3="3.3.1-9")
@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("as_published", [False, True])
def test_retain_as_published_keeps_the_flag(world: World, protocol: int, as_published: bool) -> None:
    peer, sender = world.client(protocol=protocol), world.client()
    topic = world.topic()
    peer.subscribe(Subscription(topic, 1, retain_as_published=as_published))
    for retain in (False, True):
        sender.publish(topic, b"x", retain=retain)
        assert peer.message().retain == (retain and as_published and protocol == 5)


@shows(v5="3.3.1-9 3.3.1-10 3.3.1-11")
@pytest.mark.parametrize(("handling", "first", "again"), [(0, True, True), (1, True, False), (2, False, False)])
def test_retain_handling_controls_retained_messages(world: World, handling: int, first: bool, again: bool) -> None:
    peer = world.client()
    topic = world.topic()
    peer.publish(topic, b"kept", retain=True)
    for expected in (first, again):
        peer.subscribe(Subscription(topic, 1, retain_handling=handling))
        if expected:
            assert peer.message().payload == b"kept"
        peer.expect_nothing()
    peer.unsubscribe(topic)
    peer.subscribe(Subscription(topic, 1, retain_handling=handling))
    if first:
        assert peer.message().payload == b"kept"
    peer.expect_nothing()


@shows(v5="3.3.4-3 3.3.4-4 3.3.4-5")
def test_message_has_all_matching_subscription_identifiers(world: World) -> None:
    peer = world.client()
    topic = world.topic("x")
    wide = topic.replace("/x", "/+")

    def identifiers() -> list[int]:
        peer.publish(topic)
        message = peer.message()
        return [] if message.properties is None else sorted(message.properties.subscription_ids)

    peer.subscribe(topic, identifier=1)
    assert identifiers() == [1]
    peer.subscribe(wide, identifier=268_435_455)
    assert identifiers() == [1, 268_435_455]
    peer.subscribe(topic, identifier=7)
    assert identifiers() == [7, 268_435_455]
    peer.subscribe(topic)
    assert identifiers() == [268_435_455]
    peer.unsubscribe(wide)
    assert identifiers() == []


@pytest.mark.parametrize("identifiers", [b"\x0b\x00", b"\x0b\x01\x0b\x02"])
def test_zero_or_repeated_subscription_identifier_ends_connection(world: World, identifiers: bytes) -> None:
    peer = world.client()
    body = b"\x00\x01" + bytes((len(identifiers),)) + identifiers + raw.text(b"a") + b"\x00"
    peer.send(raw.packet(0x82, body))
    peer.expect_end(0x82)


@shows(v5="3.9.2-1 3.9.2-2 3.1.2-24")
def test_suback_keeps_to_the_clients_maximum_packet_size(world: World) -> None:
    """The server omits the reason string; if the codes alone do not fit, it ends the connection."""
    peer = world.client(maximum_packet_size=30)
    peer.send(Subscribe(1, [Subscription("refused/x")]))
    answer = peer.expect(SubAck)
    assert (answer.reasons, answer.properties) == ([0x87], None)
    topic = world.topic()
    peer.send(Subscribe(2, [Subscription(f"{topic}/{number}") for number in range(40)]))
    peer.expect_end(0x95)


def test_subscription_above_the_limit_is_refused(world: World) -> None:
    peer = world.client()
    topic = world.topic()
    filters = [f"{topic}/{number}" for number in range(SUBSCRIPTIONS)]
    assert peer.subscribe(*filters) == [2] * SUBSCRIPTIONS
    assert peer.subscribe(f"{topic}/more", filters[0]) == [0x97, 2]
    peer.unsubscribe(filters[1])
    assert peer.subscribe(f"{topic}/more") == [2]


@PROTOCOLS
def test_wide_filter_brings_no_refused_topic(world: World, protocol: int) -> None:
    """No client can publish a refused topic. (QoS 0: there may be more retained messages than a queue holds.)"""
    peer = world.client(protocol=protocol)
    topic = world.topic()
    assert peer.subscribe("+/#", qos=0) == [0]
    sender = world.client()
    sender.send(Publish("refused/x", b"", 1, False, False, 1, properties(content_type="x")))
    assert sender.expect(Ack).reason == 0x87
    sender.publish(topic, b"last")
    topics = [peer.message().topic]
    while topics[-1] != topic:
        topics.append(peer.message().topic)
    assert not [topic for topic in topics if topic.startswith("refused")]


def test_wide_filter_brings_no_refused_topic_of_the_mesh() -> None:
    """Neither live, nor retained, nor to a member of a group, when the mesh itself publishes to a refused topic."""
    world = BrokerWorld()
    inside, peer, later = world.bench.client("inside"), world.client(), world.client()
    peer.subscribe("+/#", "$share/g/+/x", "+/x")
    for topic in ("refused/x", "open/x"):
        inside.publish(topic, topic.encode(), retain=True)
    assert peer.messages(2) == [b"open/x", b"open/x"]
    peer.expect_nothing()
    later.subscribe("+/#")
    assert later.message().payload == b"open/x"
    later.expect_nothing()
