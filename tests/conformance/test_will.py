"""The will: when it is published, when it is not, and its content (MQTT 5.0 and 3.1.1 section 3.1.2.5)."""

from __future__ import annotations

import pytest

from tests.conformance.clients import PROTOCOLS, watch, will
from tests.conformance.world import World
from tests.support.shows import shows


@shows(v5="3.1.2-7 3.1.2-8 3.1.2-10", v3="3.1.2-8 3.1.2-9 3.1.2-10")
@PROTOCOLS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_will_is_published_when_the_connection_is_lost(world: World, protocol: int, qos: int) -> None:
    watcher, topic = watch(world)
    world.client(protocol=protocol, will=will(topic, qos=qos)).lose()
    message = watcher.message()
    assert (message.payload, message.qos, message.retain) == (b"will", qos, False)
    watcher.expect_nothing()


@shows(v5="3.1.2-8 4.13.1-1", v3="3.1.2-8")
@PROTOCOLS
def test_will_is_published_after_a_protocol_error(world: World, protocol: int) -> None:
    watcher, topic = watch(world)
    peer = world.client(protocol=protocol, will=will(topic))
    peer.send(b"\x36\x00")
    peer.expect_end(0x81)
    assert watcher.message().payload == b"will"


@shows(v5="3.1.2-10 3.14.4-3", v3="3.1.2-10 3.14.4-3 3.1.2-12")
@PROTOCOLS
def test_normal_disconnect_deletes_the_will(world: World, protocol: int) -> None:
    watcher, topic = watch(world)
    world.client(protocol=protocol, will=will(topic)).leave()
    world.client(protocol=protocol).lose()  # a client without a will
    watcher.expect_nothing()


@shows(v5="3.1.2-8")
@pytest.mark.parametrize("reason", [0x04, 0x80, 0x81, 0x83, 0x93])
def test_disconnect_with_another_reason_publishes_the_will(world: World, reason: int) -> None:
    watcher, topic = watch(world)
    world.client(will=will(topic)).leave(reason)
    assert watcher.message().payload == b"will"


@shows(v5="3.1.2-14 3.1.2-15", v3="3.1.2-16 3.1.2-17")
@PROTOCOLS
@pytest.mark.parametrize("retain", [False, True])
def test_will_with_will_retain_is_retained(world: World, protocol: int, retain: bool) -> None:
    watcher, topic = watch(world)
    world.client(protocol=protocol, will=will(topic, retain=retain)).lose()
    assert watcher.message().payload == b"will"
    later = world.client(protocol=protocol)
    later.subscribe(topic)
    if retain:
        assert later.message().retain
    later.expect_nothing()


@shows(v5="3.1.3-10")
def test_will_properties_become_message_properties(world: World) -> None:
    watcher, topic = watch(world)
    fields = {
        "payload_format": 1, "content_type": "text", "response_topic": "answer", "correlation_data": b"7",
        "user": [("b", "1"), ("a", "2"), ("b", "0")],
    }  # fmt: skip
    world.client(expiry=60, will=will(topic, 0, message_expiry=60, **fields)).lose()
    got = watcher.message().properties
    assert got is not None
    assert {name: getattr(got, name) for name in fields} == fields
    assert got.message_expiry in (59, 60)
    assert got.will_delay is None


@shows(v5="3.1.2-8 3.1.2-10")
def test_will_is_published_after_its_delay(world: World) -> None:
    watcher, topic = watch(world)
    world.client(expiry=60, will=will(topic, 3)).lose()
    world.elapse(1.5)
    watcher.expect_nothing()
    world.elapse(2.0)
    assert watcher.message().payload == b"will"
    watcher.expect_nothing()


@shows(v5="3.1.3-9")
def test_reconnect_before_the_delay_deletes_the_will(world: World) -> None:
    watcher, topic = watch(world)
    first = world.client(expiry=60, will=will(topic, 1))
    first.lose()
    second = world.client(first.client_id, clean=False, expiry=60)
    assert second.connack.session_present
    world.elapse(2.5)
    watcher.expect_nothing()


@shows(v5="3.1.2-8")
def test_will_is_published_at_the_latest_when_the_session_ends(world: World) -> None:
    watcher, topic = watch(world)
    world.client(expiry=0, will=will(topic, 60)).lose()
    assert watcher.message().payload == b"will"
    world.client(expiry=1, will=will(topic, 60)).lose()
    world.elapse(2.5)
    assert watcher.message().payload == b"will"


@shows(v5="3.1.2-8 3.1.4-3")
@pytest.mark.parametrize(
    ("delay", "clean", "published"), [(None, False, True), (None, True, True), (9, True, True), (9, False, False)]
)
def test_takeover_publishes_a_will_without_delay(world: World, delay: int | None, clean: bool, published: bool) -> None:
    """Clean Start ends the old session, so it also ends the delay."""
    watcher, topic = watch(world)
    first = world.client(expiry=60, will=will(topic, delay))
    second = world.client(first.client_id, clean=clean, expiry=60)
    first.expect_end(0x8E)
    if published:
        assert watcher.message().payload == b"will"
    second.leave()
    watcher.expect_nothing()


@shows(v5="3.1.2-8")
def test_clean_start_publishes_a_delayed_will(world: World) -> None:
    watcher, topic = watch(world)
    first = world.client(expiry=60, will=will(topic, 30))
    first.lose()
    watcher.expect_nothing()
    world.client(first.client_id, clean=True)
    assert watcher.message().payload == b"will"


@shows(v5="3.1.2-10")
def test_will_is_published_once(world: World) -> None:
    watcher, topic = watch(world)
    first = world.client(expiry=60, will=will(topic))
    first.lose()
    assert watcher.message().payload == b"will"
    world.client(first.client_id, clean=False, expiry=60).lose()
    watcher.expect_nothing()
