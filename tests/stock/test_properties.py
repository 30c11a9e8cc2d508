"""MQTT 5.0: the properties of a message arrive with it; request and response."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.peer import Props
from tests.stock.way import Way

pytestmark = pytest.mark.e2e


def test_properties_arrive_unchanged(makers: Makers, way: Way, modern: Dialect) -> None:
    publisher, receiver = makers.pair(modern, way)
    receiver.subscribe(way.topic("report"))
    props = Props(
        user=(("unit", "km/h"), ("unit", "°C"), ("", "")), content_type="text/plain", text=1,
        response_topic=way.topic("answers"), correlation=bytes(range(256)),
    )  # fmt: skip
    publisher.publish(way.topic("report"), "fünf".encode(), props=props)
    assert receiver.expect(1)[0].props == props


def test_queued_message_keeps_its_properties(makers: Makers, way: Way, modern: Dialect) -> None:
    options = makers.options(modern, way, clean=False, expiry=3600)
    sleeper = makers.fresh(modern[0])
    sleeper.connect(options)
    sleeper.subscribe(way.topic("wait"))
    sleeper.leave()
    props = Props(user=(("k", "v"),), content_type="a/b", response_topic=way.topic("r"), correlation=b"\0")
    makers.join(modern, way).publish(way.topic("wait"), b"x", props=props)
    awake = makers.fresh(modern[0])
    awake.connect(options)
    assert awake.expect(1)[0].props == props


def test_retained_message_keeps_its_properties(makers: Makers, way: Way, modern: Dialect) -> None:
    publisher, receiver = makers.pair(modern, way)
    props = Props(user=(("k", "v"),), content_type="a/b")
    publisher.publish(way.topic("state"), b"x", retain=True, props=props)
    receiver.subscribe(way.topic("state"))
    assert receiver.expect(1)[0].props == props


def test_response_reaches_the_requester(makers: Makers, way: Way, modern: Dialect) -> None:
    asking, answering = makers.pair(modern, way)
    asking.subscribe(way.topic("answers", "me"))
    answering.subscribe(way.topic("questions"))
    for number in (b"1", b"2"):
        asking.publish(way.topic("questions"), b"?", props=Props(response_topic=way.topic("answers", "me"),
                                                                 correlation=number))  # fmt: skip
    for question in answering.expect(2):
        props = Props(correlation=question.props.correlation)
        answering.publish(question.props.response_topic, b"answer " + question.props.correlation, props=props)
    answers = [(message.payload, message.props.correlation) for message in asking.expect(2)]
    assert answers == [(b"answer 1", b"1"), (b"answer 2", b"2")]


def test_older_client_gets_the_message_without_properties(makers: Makers, way: Way, modern: Dialect) -> None:
    publisher = makers.join(modern, way)
    receiver = makers.join(("paho", 4), way)
    receiver.subscribe(way.topic("report"))
    publisher.publish(way.topic("report"), b"x", props=Props(user=(("k", "v"),), content_type="a/b"))
    assert (receiver.expect(1)[0].payload, receiver.received[0].props) == (b"x", Props())
