"""MQTT 5.0: topic aliases in both directions."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.peer import V5, Message, Props
from tests.stock.way import Way

pytestmark = pytest.mark.e2e


def topics_of(messages: list[Message]) -> list[str]:
    """The topic names. A library that leaves aliases to its user (paho) reports an empty topic for each known alias."""
    known: dict[int, str] = {}
    for message in messages:
        if message.topic and message.props.alias:
            known[message.props.alias] = message.topic
    return [message.topic or known[message.props.alias] for message in messages]


def test_client_uses_aliases(makers: Makers, way: Way, modern: Dialect) -> None:
    publisher, receiver = makers.pair(modern, way)
    receiver.subscribe(way.topic("#"))
    publisher.publish(way.topic("one"), b"1", props=Props(alias=1))
    publisher.publish(way.topic("two"), b"2", props=Props(alias=2))
    publisher.publish("", b"3", 0, props=Props(alias=1))
    publisher.publish("", b"4", 2, props=Props(alias=2))
    publisher.publish(way.topic("three"), b"5", props=Props(alias=1))
    publisher.publish("", b"6", props=Props(alias=1))
    found = {message.payload: message.topic for message in receiver.expect(6)}
    expected = {b"1": "one", b"2": "two", b"3": "one", b"4": "two", b"5": "three", b"6": "three"}
    assert found == {payload: way.topic(name) for payload, name in expected.items()}


def test_library_assigns_aliases_by_itself(makers: Makers, way: Way) -> None:
    """MQTT.js does so, and gives the least recently used alias to a new topic."""
    receiver = makers.join(("mqttjs", V5), way)
    publisher, greeting = makers.greeted(("mqttjs", V5), way, alias_itself=True)
    assert greeting.alias_maximum
    receiver.subscribe(way.topic("#"))
    topics = [way.topic(str(number % 20)) for number in range(60)] + [way.topic("often")] * 20
    for number, topic in enumerate(topics):
        publisher.publish(topic, str(number).encode())
    messages = receiver.expect(len(topics))
    assert [(int(message.payload), message.topic) for message in messages] == list(enumerate(topics))


def test_server_uses_aliases_up_to_the_clients_maximum(makers: Makers, way: Way, modern: Dialect) -> None:
    maximum = 3
    publisher, receiver = makers.pair(modern, way, alias_maximum=maximum)
    receiver.subscribe(way.topic("#"))
    topics = [way.topic(name) for name in "ababcdcdaefe"]
    for topic in topics:
        publisher.publish(topic, b"x")
    messages = receiver.expect(len(topics))
    assert topics_of(messages) == topics
    aliases = {message.props.alias for message in messages} - {0}
    assert aliases
    assert max(aliases) <= maximum


def test_server_uses_no_alias_without_a_maximum(makers: Makers, way: Way, modern: Dialect) -> None:
    publisher, receiver = makers.pair(modern, way)
    receiver.subscribe(way.topic("#"))
    for _ in range(3):
        publisher.publish(way.topic("a"), b"x")
    assert [(message.topic, message.props.alias) for message in receiver.expect(3)] == [(way.topic("a"), 0)] * 3
