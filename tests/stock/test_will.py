"""The will is published when the line breaks, but not when the client sends DISCONNECT."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.stock.line import Line
from tests.stock.makers import Dialect, Makers
from tests.stock.peer import Will
from tests.stock.way import Way
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
Lines = Callable[[Way], Line]


def test_broken_line_publishes_the_will(makers: Makers, way: Way, dialect: Dialect, line: Lines) -> None:
    watcher = makers.join(dialect, way)
    watcher.subscribe(way.topic("will"))
    wire = line(way)
    makers.join(dialect, way, port=wire.port, will=Will(way.topic("will"), b"gone"))
    wire.cut()
    message = watcher.expect(1)[0]
    assert (message.payload, message.qos, message.retain) == (b"gone", 1, False)


def test_will_may_be_retained(makers: Makers, way: Way, dialect: Dialect, line: Lines) -> None:
    wire = line(way)
    watcher, later = makers.pair(dialect, way)
    watcher.subscribe(way.topic("will"))
    makers.join(dialect, way, port=wire.port, will=Will(way.topic("will"), b"offline", 2, retain=True))
    wire.cut()
    watcher.expect(1)
    later.subscribe(way.topic("will"))
    assert (later.expect(1)[0].payload, later.received[0].retain) == (b"offline", True)


def test_disconnect_does_not_publish_the_will(makers: Makers, way: Way, dialect: Dialect, line: Lines) -> None:
    watcher = makers.join(dialect, way)
    watcher.subscribe(way.topic("+"))
    polite = makers.join(dialect, way, will=Will(way.topic("polite"), b"gone"))
    wire = line(way)
    makers.join(dialect, way, port=wire.port, will=Will(way.topic("rude"), b"gone"))
    polite.leave()
    wire.cut()
    assert [message.topic for message in watcher.expect(1)] == [way.topic("rude")]


def test_reconnect_deletes_a_delayed_will(makers: Makers, way: Way, modern: Dialect, line: Lines) -> None:
    watcher = makers.join(modern, way)
    watcher.subscribe(way.topic("+"))
    wire = line(way)
    will = Will(way.topic("will"), b"gone", delay=3600)
    same = {"client_id": f"{way.prefix}/lost", "expiry": 3600, "clean": False}
    lost = makers.join(modern, way, port=wire.port, will=will, **same)
    wire.cut()
    wait_until(lambda: lost.record.closes, "the client's report that the connection ended")
    makers.join(modern, way, **same)
    makers.join(modern, way).publish(way.topic("end"), b"end")
    assert watcher.expect_last(b"end")[0].payload == b"end"
