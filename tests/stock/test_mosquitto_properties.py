"""MQTT 5.0 on Mosquitto's command lines (-D): properties, aliases, identifiers, groups, and ``mosquitto_rr``."""

from __future__ import annotations

import pytest

from tests.stock.makers import Makers
from tests.stock.mosquitto import FORMAT, V5, Got, Mosquitto
from tests.stock.peer import V5 as PROTOCOL_5
from tests.stock.peer import Props
from tests.stock.way import Way
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e


def define(command: str, **properties: str | int) -> list[str]:
    """The options that set these properties for a command."""
    options: list[str] = []
    for name, value in properties.items():
        options += ["-D", command, name.replace("_", "-"), str(value)]
    return options


def test_properties_arrive_unchanged(mosquitto: Mosquitto, way: Way) -> None:
    sub = mosquitto.sub(way, V5, "-q", "1", "-t", way.topic("t"))
    mosquitto.sent(
        way, V5, "-q", "1", "-t", way.topic("t"), "-m", "x", "-D", "publish", "user-property", "unit", "km/h",
        "-D", "publish", "user-property", "unit", "m/s",
        *define("publish", content_type="text/plain", response_topic="an/answer", correlation_data="7",
                message_expiry_interval=600),
    )  # fmt: skip
    got = sub.expect(1)[0]
    assert 0 < int(got.expiry) <= 600
    assert got == Got(
        way.topic("t"), 1, False, b"x", "text/plain", "7", "an/answer", "unit:km/h unit:m/s", "", got.expiry, ""
    )


def test_publisher_may_use_an_alias(mosquitto: Mosquitto, way: Way) -> None:
    """With --repeat the program sends the topic name once."""
    sub = mosquitto.sub(way, V5, "-q", "1", "-t", way.topic("#"))
    mosquitto.sent(
        way, V5, "-q", "1", "-t", way.topic("t"), "-m", "x", "--repeat", "5", *define("publish", topic_alias=3)
    )
    assert [(got.topic, got.payload) for got in sub.expect(5)] == [(way.topic("t"), b"x")] * 5


def test_message_has_the_subscription_identifier(mosquitto: Mosquitto, way: Way) -> None:
    sub = mosquitto.sub(way, V5, "-q", "1", "-t", way.topic("#"), *define("subscribe", subscription_identifier=12345))
    mosquitto.sent(way, V5, "-q", "1", "-t", way.topic("t"), "-m", "x")
    assert sub.expect(1)[0].identifiers == "12345"


def test_receive_maximum_of_1_keeps_the_order(mosquitto: Mosquitto, way: Way) -> None:
    sub = mosquitto.sub(way, V5, "-q", "2", "-t", way.topic("t"), *define("connect", receive_maximum=1))
    lines = "".join(f"{number}\n" for number in range(50)).encode()
    mosquitto.sent(way, V5, "-q", "2", "-t", way.topic("t"), "-l", given=lines)
    assert [int(got.payload) for got in sub.expect(50)] == list(range(50))


def test_message_above_the_maximum_packet_size_is_dropped(mosquitto: Mosquitto, way: Way) -> None:
    sub = mosquitto.sub(way, V5, "-q", "1", "-t", way.topic("t"), *define("connect", maximum_packet_size=200))
    for size in (100, 300, 101):
        mosquitto.sent(way, V5, "-q", "1", "-t", way.topic("t"), "-m", "x" * size)
    assert [len(got.payload) for got in sub.expect_last(b"x" * 101)] == [100, 101]


def test_group_members_share_messages(mosquitto: Mosquitto, way: Way, version: str) -> None:
    members = [mosquitto.sub(way, version, "-q", "1", "-t", f"$share/g/{way.topic('work')}") for _ in range(2)]
    lines = "".join(f"{number}\n" for number in range(40)).encode()
    mosquitto.sent(way, version, "-q", "1", "-t", way.topic("work"), "-l", given=lines)
    wait_until(lambda: sum(len(member.got) for member in members) >= 40, "all messages at the members")
    assert sorted(int(got.payload) for member in members for got in member.got) == list(range(40))
    assert all(member.got for member in members)


def test_response_reaches_the_requester(mosquitto: Mosquitto, makers: Makers, way: Way) -> None:
    """``mosquitto_rr`` sends a request, and another client publishes the response to its response topic."""
    answering = makers.join(("paho", PROTOCOL_5), way)
    answering.subscribe(way.topic("question"))
    asking = mosquitto.run(
        "mosquitto_rr", way, V5, "-q", "1", "-t", way.topic("question"), "-e", way.topic("answer"), "-m", "6 * 7?",
        "-F", FORMAT, *define("publish", correlation_data="deep"),
    )  # fmt: skip
    question = answering.expect(1)[0]
    assert (question.payload, question.props.response_topic) == (b"6 * 7?", way.topic("answer"))
    answering.publish(question.props.response_topic, b"42", props=Props(correlation=question.props.correlation))
    assert asking.ended() == 0
    assert [(got.payload, got.correlation) for got in asking.got] == [(b"42", "deep")]
