"""Message expiry (MQTT 5.0 section 3.3.2.3.3), and queues that are full."""

from __future__ import annotations

import pytest

from tests.conformance.shows import shows
from tests.conformance.world import QUEUE, World, properties


@shows(v5="3.3.2-5 3.3.2-6")
@pytest.mark.parametrize("qos", [1, 2])
def test_what_waits_too_long_is_not_delivered(world: World, qos: int) -> None:
    sleeper, sender = world.client(expiry=60), world.client()
    topic = world.topic()
    sleeper.subscribe(topic)
    sleeper.leave()
    for payload, expiry in ((b"short", 1), (b"long", 50), (b"never", None)):
        fields = {} if expiry is None else {"message_expiry": expiry}
        sender.publish(topic, payload, qos, properties=properties(**fields) if fields else None)
    world.elapse(2.1)
    sleeper = world.client(sleeper.client_id, clean=False, expiry=60)
    first, second = sleeper.message(), sleeper.message()
    assert (first.payload, second.payload) == (b"long", b"never")
    assert first.properties is not None
    assert first.properties.message_expiry in (46, 47, 48)
    assert second.properties is None
    sleeper.expect_nothing()


@shows(v5="3.3.2-6")
def test_what_does_not_wait_keeps_its_interval(world: World) -> None:
    peer = world.client()
    topic = world.topic()
    peer.subscribe(topic)
    peer.publish(topic, properties=properties(message_expiry=100))
    got = peer.message().properties
    assert got is not None
    assert got.message_expiry in (99, 100)


@shows(v5="3.4.2-1 3.5.2-1")
@pytest.mark.parametrize("qos", [1, 2])
def test_a_full_queue_is_said_so(world: World, qos: int) -> None:
    """And what it took is kept."""
    sleeper, sender = world.client(expiry=60), world.client()
    topic = world.topic()
    sleeper.subscribe(topic)
    sleeper.leave()
    for number in range(QUEUE):
        assert sender.publish(topic, b"%d" % number, qos) == 0
    assert sender.publish(topic, b"too many", qos) == 0x97
    sleeper = world.client(sleeper.client_id, clean=False, expiry=60)
    assert sleeper.messages(QUEUE) == [b"%d" % number for number in range(QUEUE)]
    sleeper.expect_nothing()


def test_a_full_queue_of_one_does_not_concern_another(world: World) -> None:
    sleeper, awake, sender = world.client(expiry=60), world.client(), world.client()
    topic = world.topic()
    sleeper.subscribe(topic)
    awake.subscribe(topic)
    sleeper.leave()
    for number in range(QUEUE + 5):
        assert sender.publish(topic, b"%d" % number) == 0
        assert awake.message().payload == b"%d" % number
