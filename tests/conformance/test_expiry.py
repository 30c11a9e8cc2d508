"""Message expiry (MQTT 5.0 section 3.3.2.3.3), and queues that are full."""

from __future__ import annotations

import pytest

from mesh.wire.packets import Ack, Publish
from tests.conformance.world import QUEUE, World, properties
from tests.support.shows import shows


@shows(v5="3.3.2-5 3.3.2-6")
@pytest.mark.parametrize("qos", [1, 2])
def test_expired_message_is_not_delivered(world: World, qos: int) -> None:
    sleeper, sender = world.client(expiry=60), world.client()
    topic = world.topic()
    sleeper.subscribe(topic)
    sleeper.leave()
    for payload, expiry in ((b"short", 1), (b"long", 50), (b"never", None)):
        fields = {} if expiry is None else {"message_expiry": expiry}
        sender.publish(topic, payload, qos, properties=properties(**fields) if fields else None)
    world.elapse(1.2)
    sleeper = world.client(sleeper.client_id, clean=False, expiry=60)
    first, second = sleeper.message(), sleeper.message()
    assert (first.payload, second.payload) == (b"long", b"never")
    assert first.properties is not None
    assert first.properties.message_expiry in (47, 48, 49)
    assert second.properties is None
    sleeper.expect_nothing()


@shows(v5="3.3.2-6")
def test_message_delivered_at_once_keeps_its_expiry(world: World) -> None:
    peer = world.client()
    topic = world.topic()
    peer.subscribe(topic)
    peer.publish(topic, properties=properties(message_expiry=100))
    got = peer.message().properties
    assert got is not None
    assert got.message_expiry in (99, 100)


@shows(v5="3.4.2-1 3.5.2-1 4.4.0-2 4.3.3-9")
@pytest.mark.parametrize("qos", [1, 2])
def test_full_queue_is_reported_to_the_publisher(world: World, qos: int) -> None:
    """The queue keeps the messages that it accepted."""
    sleeper, sender = world.client(expiry=60), world.client()
    topic = world.topic()
    sleeper.subscribe(topic)
    sleeper.leave()
    for number in range(QUEUE):
        assert sender.publish(topic, b"%d" % number, qos) == 0
    last = sender.next_id()
    sender.send(Publish(topic, b"too many", qos, False, False, last))
    assert sender.expect(Ack).reason == world.full
    if world.full:  # the exchange is over: this is a new message
        sender.send(Publish(world.topic(), b"", qos, False, False, last))
        assert sender.expect(Ack).reason == 0x10
    sleeper = world.client(sleeper.client_id, clean=False, expiry=60)
    assert sleeper.messages(QUEUE) == [b"%d" % number for number in range(QUEUE)]
    sleeper.expect_nothing()


def test_full_queue_of_one_session_does_not_affect_another(world: World) -> None:
    sleeper, awake, sender = world.client(expiry=60), world.client(), world.client()
    topic = world.topic()
    sleeper.subscribe(topic)
    awake.subscribe(topic)
    sleeper.leave()
    for number in range(QUEUE + 5):
        assert sender.publish(topic, b"%d" % number) == 0
        assert awake.message().payload == b"%d" % number


@shows(v5="3.3.2-6")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_shortest_expiry_is_passed_on_unchanged(world: World, qos: int) -> None:
    """A fraction of a second does not count: the next server would drop a message with 0 seconds left."""
    peer = world.client()
    topic = world.topic()
    peer.subscribe(topic)
    peer.publish(topic, b"x", qos, properties=properties(message_expiry=1))
    got = peer.message().properties
    assert got is not None
    assert got.message_expiry == 1


@shows(v5="3.3.2-5")
def test_expired_messages_take_no_room_in_a_queue(world: World) -> None:
    """A queue full of expired messages accepts new ones, and keeps the order of those that have not expired."""
    sleeper, sender = world.client(expiry=60), world.client()
    topic = world.topic()
    sleeper.subscribe(topic)
    sleeper.leave()
    for number in range(QUEUE):
        fields = None if number % 10 == 0 else properties(message_expiry=4)  # none expires before the queue is full
        assert sender.publish(topic, b"%d" % number, 1 + number % 2, properties=fields) == 0
    assert sender.publish(topic, b"too many") == world.full
    world.elapse(4.2)
    for number in range(QUEUE, QUEUE + 5):
        assert sender.publish(topic, b"%d" % number) == 0
    sleeper = world.client(sleeper.client_id, clean=False, expiry=60)
    assert sleeper.messages(15) == [b"%d" % number for number in (*range(0, QUEUE, 10), *range(QUEUE, QUEUE + 5))]
    sleeper.expect_nothing()


@shows(v5="3.3.2-5 3.3.2-6")
def test_older_client_gets_no_expired_message(world: World) -> None:
    """A client before 5.0 cannot receive the interval; the expiry applies nevertheless."""
    sleeper, sender = world.client(protocol=4, clean=False), world.client()
    topic = world.topic()
    sleeper.subscribe(topic)
    sleeper.leave()
    for payload, expiry in ((b"short", 1), (b"long", 50)):
        sender.publish(topic, payload, properties=properties(message_expiry=expiry))
    world.elapse(1.2)
    sleeper = world.client(sleeper.client_id, 4, clean=False)
    assert sleeper.message().payload == b"long"
    sleeper.expect_nothing()
