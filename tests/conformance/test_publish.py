"""PUBLISH from a client, and the messages that its receivers get (MQTT 5.0 and 3.1.1 section 3.3)."""

from __future__ import annotations

import itertools

import pytest

from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish, Subscription
from tests.conformance import raw
from tests.conformance.clients import PROTOCOLS
from tests.conformance.world import World, properties
from tests.support.shows import shows

ALL_QOS = pytest.mark.parametrize("qos", [0, 1, 2])


@shows(v5="3.3.4-1 4.3.1-1 4.3.2-4 4.3.3-8 3.3.2-3", v3="3.3.4-1 4.3.1-1 4.3.2-2 3.3.2-3")
@PROTOCOLS
@ALL_QOS
def test_publish_is_answered_according_to_its_qos(world: World, protocol: int, qos: int) -> None:
    receiver, sender = world.client(protocol=protocol), world.client(protocol=protocol)
    topic = world.topic("a/b")
    receiver.subscribe(topic.replace("/a/", "/+/"))
    sender.send(Publish(topic, b"x", qos, False, False, 9 if qos else 0))
    if qos:
        assert sender.expect(Ack) == Ack(PUBACK if qos == 1 else PUBREC, 9)
    sender.expect_nothing()
    message = receiver.message()
    assert (message.topic, message.payload, message.qos) == (topic, b"x", qos)


@shows(v5="3.3.2-2 4.7.0-1 4.7.3-1", v3="3.3.2-2 4.7.1-1 4.7.3-1")
@PROTOCOLS
@pytest.mark.parametrize("topic", [b"a/+", b"#", b"+", b"a/b#", b""])
def test_empty_or_wildcard_topic_name_ends_connection(world: World, protocol: int, topic: bytes) -> None:
    peer = world.client(protocol=protocol)
    peer.send(raw.publish(topic, protocol))
    peer.expect_end(0x82 if topic == b"" and protocol == 5 else 0x81)


@shows(v5="4.7.3-3", v3="4.7.3-3")
@PROTOCOLS
def test_long_topic_name_is_accepted(world: World, protocol: int) -> None:
    peer = world.client(protocol=protocol)
    topic = world.topic("x" * 60_000)
    peer.subscribe(topic)
    peer.publish(topic)
    assert peer.message().topic == topic


@shows(v5="3.3.1-3 4.3.2-5", v3="3.3.1-3")
@PROTOCOLS
def test_dup_is_not_passed_on_to_receivers(world: World, protocol: int) -> None:
    """A QoS 1 message with DUP counts as new if its identifier is free."""
    receiver, sender = world.client(protocol=protocol), world.client(protocol=protocol)
    topic = world.topic()
    receiver.subscribe(topic)
    for _ in range(2):
        sender.send(Publish(topic, b"x", 1, False, True, 5))
        sender.expect(Ack)
        assert not receiver.message().dup
    receiver.expect_nothing()


@shows(v5="3.3.2-4 3.3.2-15 3.3.2-16 3.3.2-17 3.3.2-18 3.3.2-20 3.3.2-13 3.3.2-19")
@ALL_QOS
def test_message_properties_reach_receivers_unchanged(world: World, qos: int) -> None:
    receiver, sender = world.client(), world.client()
    topic = world.topic()
    receiver.subscribe(topic)
    fields = {
        "payload_format": 1, "content_type": "application/\u00fc", "response_topic": "answers/1",
        "correlation_data": bytes(range(256)),
        "user": [("b", "2"), ("a", "1"), ("b", "2"), ("", ""), ("traceparent-like", "x")],
    }  # fmt: skip
    sender.publish(topic, "\u00fc".encode(), qos, properties=properties(**fields))
    got = receiver.message().properties
    assert got is not None
    assert {name: getattr(got, name) for name in fields} == fields
    assert got.topic_alias is None


@shows(v5="3.3.2-14")
@pytest.mark.parametrize("topic", [b"a/+", b"#"])
def test_response_topic_with_a_wildcard_ends_connection(world: World, topic: bytes) -> None:
    peer = world.client()
    peer.send(raw.publish(b"a", 5, properties=b"\x08" + raw.text(topic)))
    peer.expect_end(0x82)


@shows(v5="4.7.3-1 4.13.1-1")
@ALL_QOS
def test_empty_response_topic_ends_connection(world: World, qos: int) -> None:
    """A response topic is a topic name."""
    watcher, peer = world.client(), world.client()
    topic = world.topic()
    watcher.subscribe(topic)
    peer.send(Publish(topic, b"x", qos, False, False, 1 if qos else 0, properties(response_topic="")))
    peer.expect_end(0x82)
    watcher.expect_nothing()


def test_missing_subscriber_is_reported_by_a_reason_code(world: World) -> None:
    peer = world.client()
    assert peer.publish(world.topic(), qos=1) == 0x10
    assert peer.publish(world.topic(), qos=2) == 0x10


@shows(v5="3.4.2-1 3.5.2-1 4.4.0-2 4.3.3-9", v3="3.3.5-2")
@PROTOCOLS
@pytest.mark.parametrize("qos", [1, 2])
def test_refused_topic_gets_an_error_or_is_acknowledged_and_dropped(world: World, protocol: int, qos: int) -> None:
    """5.0 has a reason code. Before 5.0 the whole exchange takes place: a client that is closed for its message would
    send it again on each connection."""
    peer = world.client(protocol=protocol)
    peer.send(Publish("refused/x", b"", qos, False, False, 1))
    answer = peer.expect(Ack)
    assert (answer.type, answer.packet_id, answer.reason) == (
        PUBACK if qos == 1 else PUBREC, 1, 0x87 if protocol == 5 else 0
    )  # fmt: skip
    if protocol != 5 and qos == 2:
        peer.send(Publish("refused/x", b"", qos, False, True, 1), Ack(PUBREL, 1))
        assert [peer.expect(Ack).type for _ in range(2)] == [PUBREC, PUBCOMP]
    topic = world.topic()
    peer.subscribe(topic)
    peer.send(Publish(topic, b"", qos, False, False, 1))  # the exchange is over: this is a new message
    assert peer.find(Ack).reason == 0
    assert peer.find(Publish).topic == topic


@shows(v5="3.4.2-2 3.4.2-3 3.5.2-2 3.5.2-3 3.1.2-24")
@pytest.mark.parametrize("qos", [1, 2])
def test_acknowledgement_omits_a_reason_string_that_does_not_fit(world: World, qos: int) -> None:
    roomy, narrow = world.client(), world.client(maximum_packet_size=30)
    for peer in (roomy, narrow):
        peer.send(Publish("refused/x", b"", qos, False, False, 1))
    full, plain = roomy.expect(Ack), narrow.expect(Ack)
    assert full.properties is not None
    assert full.properties.reason_string
    assert (plain.reason, plain.properties) == (full.reason, None)


@shows(v5="3.1.2-29")
def test_client_may_decline_problem_information(world: World) -> None:
    peer = world.client(request_problem_info=0)
    peer.send(Publish("refused/x", b"", 1, False, False, 1))
    answer = peer.expect(Ack)
    assert (answer.reason, answer.properties) == (0x87, None)
    assert peer.subscribe("refused/x") == [0x87]
    assert b"\x1f" not in peer.received[peer.received.index(b"\x40") :]


@shows(v5="3.3.4-2 3.3.4-3 3.3.4-4 3.3.4-5", v3="3.3.5-1")
@PROTOCOLS
@pytest.mark.parametrize("granted", list(itertools.permutations(range(3))))
def test_overlapping_filters_deliver_at_the_highest_qos(world: World, protocol: int, granted: tuple[int, ...]) -> None:
    """Whichever of the filters has it."""
    peer, sender = world.client(protocol=protocol), world.client(protocol=protocol)
    topic = world.topic("a/b")
    prefix = topic.split("/")[0]
    for filter, qos in zip((f"{prefix}/#", topic, f"{prefix}/+/b"), granted, strict=True):
        peer.subscribe(filter, qos=qos, identifier=qos + 1 if protocol == 5 else 0)
    sender.publish(topic, b"once", 2)
    message = peer.message()
    assert (message.payload, message.qos) == (b"once", 2)
    if protocol == 5:
        assert message.properties is not None
        assert sorted(message.properties.subscription_ids) == [1, 2, 3]
    peer.expect_nothing()


@shows(v5="3.8.4-8", v3="3.8.4-6")
@PROTOCOLS
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_message_comes_at_the_lower_of_both_qos(world: World, protocol: int, granted: int) -> None:
    peer, sender = world.client(protocol=protocol), world.client(protocol=protocol)
    topic = world.topic()
    assert peer.subscribe(topic, qos=granted) == [granted]
    for qos in range(3):
        sender.publish(topic, b"x", qos)
        assert peer.message().qos == min(qos, granted)


@shows(v5="3.1.2-24 3.1.2-25 4.3.2-3")
@ALL_QOS
def test_receiver_does_not_get_a_too_large_message(world: World, qos: int) -> None:
    narrow, roomy, sender = world.client(maximum_packet_size=100), world.client(), world.client()
    topic = world.topic()
    narrow.subscribe(topic)
    roomy.subscribe(topic)
    sender.publish(topic, b"y" * 200, qos)
    sender.publish(topic, b"x", qos)
    assert roomy.messages(2) == [b"y" * 200, b"x"]
    assert narrow.message().payload == b"x"
    narrow.expect_nothing()


def test_too_large_publish_ends_connection(world: World) -> None:
    peer = world.client()
    peer.send(Publish(world.topic(), b"x" * 70_000))
    peer.expect_end(0x95)


@shows(v5="4.6.0-5 4.6.0-6", v3="4.6.0-5 4.6.0-6 4.6.0-1")
@PROTOCOLS
@ALL_QOS
def test_messages_of_a_topic_arrive_in_order(world: World, protocol: int, qos: int) -> None:
    receiver, sender = world.client(protocol=protocol), world.client(protocol=protocol)
    topic = world.topic()
    receiver.subscribe(topic)
    wanted = [b"%d" % number for number in range(30)]
    for payload in wanted:
        sender.publish(topic, payload, qos)
    assert receiver.messages(30) == wanted


@shows(v5="4.8.2-3")
def test_shared_message_comes_at_the_granted_qos(world: World) -> None:
    peer = world.client()
    peer.subscribe("$share/g/" + world.topic(), qos=0)
    topic = world.topic()
    peer.subscribe(Subscription(f"$share/g/{topic}", 1))
    peer.publish(topic, b"x", 2)
    assert peer.message().qos == 1
