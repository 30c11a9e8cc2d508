"""What a client is told when it asks for what it may not have, or for nothing."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.peer import V5, V31, Refused
from tests.stock.way import Way
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e
NOT_AUTHORIZED = 0x87
V3_FAILURE = 0x80
PACKET_IDENTIFIER_NOT_FOUND = 0x92
NO_MATCHING_SUBSCRIBERS = 0x10
NO_SUBSCRIPTION_EXISTED = 0x11
FOREIGN = "vehicles/another/status"


@pytest.mark.parametrize("filter", [FOREIGN, "vehicles/+/status", "#", "$share/g/vehicles/another/#"])
def test_a_vehicle_cannot_listen_to_another(makers: Makers, door: Way, dialect: Dialect, filter: str) -> None:
    vehicle = makers.join(dialect, door)
    backend = makers.join(dialect, door, user="another")
    refused = NOT_AUTHORIZED if dialect[1] == V5 else V3_FAILURE
    assert vehicle.subscribe(filter) == refused
    assert vehicle.subscribe(door.topic("own")) == 1
    backend.publish(FOREIGN, b"not for others")
    vehicle.publish(door.topic("own"), b"end")
    assert [message.payload for message in vehicle.expect(1)] == [b"end"]


@pytest.mark.parametrize(
    ("kind", "qos", "code"),
    [
        ("paho", 1, NOT_AUTHORIZED),
        ("paho", 2, PACKET_IDENTIFIER_NOT_FOUND),  # it releases what was refused in PUBREC
        ("mqttjs", 1, NOT_AUTHORIZED),
        ("mqttjs", 2, NOT_AUTHORIZED),
        ("gmqtt", 1, None),  # it tells nothing
        ("gmqtt", 2, None),
    ],
)
def test_a_vehicle_cannot_speak_for_another(
    makers: Makers, core: Way, door: Way, kind: str, qos: int, code: int | None
) -> None:
    watcher = makers.join((kind, V5), core)
    watcher.subscribe("vehicles/+/status")
    vehicle = makers.join((kind, V5), door)
    assert vehicle.publish(FOREIGN, b"forged", qos) == code
    assert vehicle.publish(door.topic("status"), b"true", qos) in (0, None)
    assert [message.payload for message in watcher.expect_last(b"true")] == [b"true"]


def test_before_5_speaking_for_another_ends_it(makers: Makers, core: Way, door: Way, legacy: Dialect) -> None:
    watcher = makers.join(legacy, core)
    watcher.subscribe("vehicles/+/status")
    vehicle = makers.join(legacy, door)
    vehicle.send(FOREIGN, b"forged")
    wait_until(lambda: vehicle.record.closes, "the end of the connection")
    makers.join(legacy, door).publish(door.topic("status"), b"true")
    assert [message.payload for message in watcher.expect_last(b"true")] == [b"true"]


def test_who_has_no_name_is_not_let_in(makers: Makers, door: Way, dialect: Dialect) -> None:
    with pytest.raises(Refused) as refusal:
        makers.join(dialect, door, user=None)
    told_in_5 = dialect[1] == V5 or dialect[0] == "paho"  # which translates return codes
    assert refusal.value.code == (NOT_AUTHORIZED if told_in_5 else 5)


def test_nobody_listens(makers: Makers, way: Way) -> None:
    publisher = makers.join(("paho", V5), way)
    assert publisher.publish(way.topic("void"), b"x") == NO_MATCHING_SUBSCRIBERS
    makers.join(("paho", V5), way).subscribe(way.topic("void"))
    assert publisher.publish(way.topic("void"), b"x") == 0


def test_there_was_no_such_subscription(makers: Makers, way: Way, modern: Dialect) -> None:
    peer = makers.join(modern, way)
    peer.subscribe(way.topic("t"))
    assert peer.unsubscribe(way.topic("other")) == NO_SUBSCRIPTION_EXISTED
    assert peer.unsubscribe(way.topic("t")) == 0


def test_the_versions_are_told_apart(makers: Makers, way: Way) -> None:
    """A 3.1 client and a 5.0 client of one session in turn: its messages suit each."""
    options = makers.options(("paho", V31), way, clean=False)
    first = makers.fresh("paho")
    first.connect(options)
    first.subscribe(way.topic("t"))
    first.leave()
    makers.join(("mqttjs", V5), way).publish(way.topic("t"), b"x")
    second = makers.join(("mqttjs", V5), way, client_id=options.client_id, clean=False, expiry=3600)
    assert second.expect(1)[0].payload == b"x"
