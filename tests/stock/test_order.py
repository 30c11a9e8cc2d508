"""Many messages at once: all arrive, in order, each once."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.peer import Wish
from tests.stock.way import Way

pytestmark = pytest.mark.e2e
COUNT = 2000
WAITING = 500


def test_burst_arrives_in_order(makers: Makers, way: Way, current: Dialect) -> None:
    publisher, receiver = makers.pair(current, way)
    receiver.subscribe(way.topic("burst"))
    publisher.pipeline(way.topic("burst"), [str(number).encode() for number in range(COUNT)])
    messages = receiver.expect(COUNT)
    assert [int(message.payload) for message in messages] == list(range(COUNT))
    assert not any(message.dup for message in messages)


def test_queued_burst_arrives_in_order(makers: Makers, way: Way, current: Dialect) -> None:
    options = makers.options(current, way, clean=False, expiry=3600)
    sleeper = makers.fresh(current[0])
    sleeper.connect(options)
    sleeper.subscribe(way.topic("burst"), Wish(1))
    sleeper.leave()
    makers.join(current, way).pipeline(way.topic("burst"), [str(number).encode() for number in range(WAITING)])
    awake = makers.fresh(current[0])
    awake.connect(options)
    assert [int(message.payload) for message in awake.expect(WAITING)] == list(range(WAITING))
