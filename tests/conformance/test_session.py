"""The lifetime and the state of a session (MQTT 5.0 sections 3.1.2.11.2 and 4.1, MQTT 3.1.1 section 3.1.2.4)."""

from __future__ import annotations

import pytest

from tests.conformance.clients import PROTOCOLS
from tests.conformance.world import World, properties
from tests.support.shows import shows


@shows(v5="3.1.2-23 4.1.0-1 4.1.0-2 4.5.0-1", v3="3.1.2-5 4.1.0-1 4.1.0-2 4.5.0-1")
@PROTOCOLS
def test_session_keeps_messages_for_its_disconnected_client(world: World, protocol: int) -> None:
    expiry = 60 if protocol == 5 else None
    sleeper = world.client(protocol=protocol, clean=False, expiry=expiry)
    topic = world.topic()
    sleeper.subscribe(topic)
    sleeper.lose()
    sender = world.client()
    for number in range(5):
        assert sender.publish(topic, b"%d" % number, 1 + number % 2) == 0
    sleeper = world.client(sleeper.client_id, protocol, clean=False, expiry=expiry)
    assert sleeper.messages(5) == [b"%d" % number for number in range(5)]


@shows(v5="4.1.0-2")
def test_session_ends_at_its_expiry(world: World) -> None:
    first = world.client(expiry=1)
    first.subscribe(world.topic())
    first.leave()
    world.elapse(2.5)
    assert not world.client(first.client_id, clean=False, expiry=1).connack.session_present


@shows(v5="4.1.0-2 4.1.0-1", v3="3.1.2-6")
@pytest.mark.parametrize("protocol", [4, 5])
def test_session_without_expiry_ends_with_its_connection(world: World, protocol: int) -> None:
    first = world.client(protocol=protocol)
    topic = world.topic()
    first.subscribe(topic)
    first.lose()
    second = world.client(first.client_id, protocol, clean=False)
    assert not second.connack.session_present
    second.publish(topic)
    second.expect_nothing()


@shows(v5="4.1.0-1")
def test_session_does_not_expire_while_connected(world: World) -> None:
    peer = world.client(expiry=1)
    topic = world.topic()
    peer.subscribe(topic)
    world.elapse(2.5)
    peer.publish(topic)
    peer.message()


@shows(v5="3.1.2-23")
def test_disconnect_may_set_a_new_session_expiry(world: World) -> None:
    first = world.client(expiry=3600)
    first.leave(properties=properties(session_expiry=0))
    assert not world.client(first.client_id, clean=False).connack.session_present
    second = world.client(expiry=1)
    second.leave(properties=properties(session_expiry=60))
    world.elapse(2.5)
    assert world.client(second.client_id, clean=False).connack.session_present


def test_disconnect_may_not_raise_an_expiry_of_0(world: World) -> None:
    peer = world.client(expiry=0)
    peer.send(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x05")
    peer.expect_end(0x82)


def test_newer_connect_replaces_the_expiry(world: World) -> None:
    first = world.client(expiry=60)
    first.leave()
    second = world.client(first.client_id, clean=False)
    assert second.connack.session_present
    second.leave()
    assert not world.client(first.client_id, clean=False).connack.session_present


@shows(v3="3.1.2-7")
def test_retained_messages_do_not_belong_to_a_session(world: World) -> None:
    first = world.client(protocol=4)
    topic = world.topic()
    first.publish(topic, b"kept", retain=True)
    first.leave()
    second = world.client(first.client_id, 4)
    second.subscribe(topic)
    assert second.message().payload == b"kept"
