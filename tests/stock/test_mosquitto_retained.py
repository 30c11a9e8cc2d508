"""``mosquitto_pub -r``, and the options of ``mosquitto_sub`` for retained messages."""

from __future__ import annotations

import pytest

from tests.stock.mosquitto import V5, Mosquitto
from tests.stock.way import Way

pytestmark = pytest.mark.e2e


def test_retained_message_is_kept_until_cleared(mosquitto: Mosquitto, way: Way, version: str) -> None:
    for name in ("cleared", "kept"):
        mosquitto.sent(way, version, "-q", "1", "-r", "-t", way.topic(name), "-m", "on")
    mosquitto.sent(way, version, "-q", "1", "-r", "-t", way.topic("cleared"), "-n")
    sub = mosquitto.sub(way, version, "-q", "1", "-t", way.topic("#"))
    mosquitto.sent(way, version, "-q", "1", "-t", way.topic("end"), "-m", "end")
    found = [(got.topic, got.retain) for got in sub.expect_last(b"end")]
    assert found == [(way.topic("kept"), True), (way.topic("end"), False)]


def test_retained_only_receives_no_live_message(mosquitto: Mosquitto, way: Way, version: str) -> None:
    """With --retained-only the program ends at the first live message."""
    for name in ("a", "b"):
        mosquitto.sent(way, version, "-r", "-q", "1", "-t", way.topic(name), "-m", name)
    sub = mosquitto.sub(way, version, "-q", "1", "--retained-only", "-t", way.topic("#"))
    sub.expect(2)
    mosquitto.sent(way, version, "-q", "1", "-t", way.topic("c"), "-m", "c")
    assert sub.ended() == 0
    assert {got.topic for got in sub.got} == {way.topic("a"), way.topic("b")}


def test_remove_retained_clears_retained_messages(mosquitto: Mosquitto, way: Way, version: str) -> None:
    for name in ("a", "b"):
        mosquitto.sent(way, version, "-r", "-q", "1", "-t", way.topic(name), "-m", name)
    cleaner = mosquitto.sub(way, version, "-q", "1", "--remove-retained", "-t", way.topic("#"))
    cleaner.says("received PUBACK", times=2)
    sub = mosquitto.sub(way, version, "-q", "1", "-t", way.topic("#"))
    mosquitto.sent(way, version, "-q", "1", "-t", way.topic("end"), "-m", "end")
    assert [got.payload for got in sub.expect_last(b"end")] == [b"end"]


def test_retain_as_published_keeps_the_flag(mosquitto: Mosquitto, way: Way) -> None:
    sub = mosquitto.sub(way, V5, "-q", "1", "--retain-as-published", "-t", way.topic("state"))
    mosquitto.sent(way, V5, "-q", "1", "-r", "-t", way.topic("state"), "-m", "on")
    assert sub.expect(1)[0].retain
