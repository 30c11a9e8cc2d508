"""MQTT 5.0: messages and sessions expire on time, and not before. All clients wait at the same time."""

from __future__ import annotations

import time

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.peer import V5, Options, Peer, Props, Wish
from tests.stock.way import Way
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
MODERN = [("paho", V5), ("mqttjs", V5), ("gmqtt", V5)]
PAST = 2.5  # seconds; safely longer than an expiry of one second


def let_time_pass() -> None:
    """Wait by the clock: a test cannot see an expiry without resuming the session."""
    over = time.monotonic() + PAST
    wait_until(lambda: time.monotonic() > over, "time passes")


def asleep(makers: Makers, dialect: Dialect, way: Way, expiry: int) -> Options:
    """The options of a client that has subscribed to ``wait`` and disconnected."""
    options = makers.options(dialect, way, clean=False, expiry=expiry)
    peer = makers.fresh(dialect[0])
    peer.connect(options)
    peer.subscribe(way.topic("wait"), Wish(2))
    peer.leave()
    return options


def test_remaining_expiry_comes_with_the_message(makers: Makers, way: Way, modern: Dialect) -> None:
    publisher, receiver = makers.pair(modern, way)
    receiver.subscribe(way.topic("soon"))
    publisher.publish(way.topic("soon"), b"x", props=Props(expiry=600))
    assert 0 < receiver.expect(1)[0].props.expiry <= 600


def publish_for_sleepers(makers: Makers, way: Way) -> None:
    """Publish messages that expire while time passes, and one that does not."""
    publisher = makers.join(MODERN[0], way)
    for qos in (1, 2):
        publisher.publish(way.topic("wait"), b"old", qos, props=Props(expiry=1))
    publisher.publish(way.topic("wait"), b"fresh", 1, props=Props(expiry=600))
    publisher.publish(way.topic("state"), b"old", 1, retain=True, props=Props(expiry=1))


def check_only_fresh_messages_come(peer: Peer, way: Way, options: Options) -> None:
    """The resumed client gets no expired message."""
    assert peer.connect(options).present
    peer.subscribe(way.topic("state"))
    fresh, end = peer.expect_last(b"end")
    assert (fresh.payload, end.payload) == (b"fresh", b"end")
    assert 0 < fresh.props.expiry < 600  # more than a second has passed
    assert end.props.expiry == 0


def test_expired_messages_are_not_delivered(makers: Makers, core: Way, door: Way) -> None:
    sleepers = [(dialect, way, asleep(makers, dialect, way, 3600)) for dialect in MODERN for way in (core, door)]
    for way in (core, door):
        publish_for_sleepers(makers, way)
    let_time_pass()
    for way in (core, door):
        makers.join(MODERN[0], way).publish(way.topic("wait"), b"end", 1)
    for dialect, way, options in sleepers:
        check_only_fresh_messages_come(makers.fresh(dialect[0]), way, options)


def test_sessions_end_at_their_expiry(makers: Makers, core: Way, door: Way) -> None:
    short = [asleep(makers, dialect, way, 1) for dialect in MODERN for way in (core, door)]
    long = [asleep(makers, dialect, way, 3600) for dialect in MODERN for way in (core, door)]
    let_time_pass()
    for options, expected in [*((one, False) for one in short), *((one, True) for one in long)]:
        assert makers.fresh("paho").connect(options).present is expected


def test_disconnect_may_end_the_session(makers: Makers, way: Way, modern: Dialect) -> None:
    for expiry, expected in ((0, False), (3600, True), (None, True)):
        options = makers.options(modern, way, clean=False, expiry=3600)
        peer = makers.fresh(modern[0])
        peer.connect(options)
        peer.leave(expiry)
        assert makers.fresh(modern[0]).connect(options).present is expected, expiry
