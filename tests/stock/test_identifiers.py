"""Client ids: a second connection takes the session over; a client without an id gets one."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.peer import V5
from tests.stock.way import Way
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
SESSION_TAKEN_OVER = 0x8E


def test_second_connection_takes_over_the_session(makers: Makers, way: Way, dialect: Dialect) -> None:
    options = makers.options(dialect, way, clean=False, expiry=3600)
    first, second = makers.fresh(dialect[0]), makers.fresh(dialect[0])
    first.connect(options)
    first.subscribe(way.topic("t"))
    second.connect(options)
    wait_until(lambda: first.record.closes, "the end of the first connection")
    assert first.record.ends == ([SESSION_TAKEN_OVER] if dialect[1] == V5 else [])
    makers.join(dialect, way).publish(way.topic("t"), b"x")
    assert second.expect(1)[0].payload == b"x"
    assert first.received == []


@pytest.mark.parametrize("kind", ["paho", "mqttjs"])
def test_server_assigns_a_unique_client_id(makers: Makers, way: Way, kind: str) -> None:
    """gmqtt generates its client id itself."""
    names = []
    for _ in range(2):
        peer, greeting = makers.greeted((kind, V5), way, client_id="", expiry=3600)
        assert greeting.assigned
        names.append(greeting.assigned)
        peer.leave()
        again, greeting = makers.greeted((kind, V5), way, client_id=names[-1], expiry=3600, clean=False)
        assert greeting.present
        assert greeting.assigned is None
        again.leave()
    assert names[0] != names[1]


@pytest.mark.parametrize("kind", ["paho", "mqttjs"])
def test_clean_session_before_5_0_needs_no_client_id(makers: Makers, way: Way, kind: str) -> None:
    one = makers.join((kind, 4), way, client_id="")
    two = makers.join((kind, 4), way, client_id="")
    for peer in (one, two):
        peer.subscribe(way.topic("t"))
    two.publish(way.topic("t"), b"x")
    for peer in (one, two):
        assert peer.expect(1)[0].payload == b"x"


def test_vehicles_may_use_equal_client_ids(makers: Makers, door: Way, dialect: Dialect) -> None:
    """A session is (vehicle, client id): another vehicle's client does not take it over."""
    mine = makers.join(dialect, door, client_id="same")
    other = makers.join(dialect, door, client_id="same", user=f"{door.user}-other")
    for peer, vehicle in ((mine, door.user), (other, f"{door.user}-other")):
        peer.subscribe(f"vehicles/{vehicle}/t")
        peer.publish(f"vehicles/{vehicle}/t", b"x")
        assert peer.expect(1)[0].payload == b"x"
    assert mine.record.closes == 0
