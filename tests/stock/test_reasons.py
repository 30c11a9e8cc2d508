"""Reason codes for requests that are refused or have no effect."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.peer import V5, V31, Refused
from tests.stock.way import Way

pytestmark = pytest.mark.e2e
NOT_AUTHORIZED = 0x87
V3_FAILURE = 0x80
PACKET_IDENTIFIER_NOT_FOUND = 0x92
NO_MATCHING_SUBSCRIBERS = 0x10
NO_SUBSCRIPTION_EXISTED = 0x11
FOREIGN = "vehicles/another/status"


@pytest.mark.parametrize("filter", [FOREIGN, "vehicles/+/status", "#", "$share/g/vehicles/another/#"])
def test_vehicle_cannot_subscribe_to_another(makers: Makers, door: Way, dialect: Dialect, filter: str) -> None:
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
        ("paho", 2, PACKET_IDENTIFIER_NOT_FOUND),  # it sends PUBREL even after an error in PUBREC
        ("mqttjs", 1, NOT_AUTHORIZED),
        ("mqttjs", 2, NOT_AUTHORIZED),
        ("gmqtt", 1, None),  # it does not report reason codes
        ("gmqtt", 2, None),
    ],
)
def test_vehicle_cannot_publish_for_another(
    makers: Makers, core: Way, door: Way, kind: str, qos: int, code: int | None
) -> None:
    watcher = makers.join((kind, V5), core)
    watcher.subscribe("vehicles/+/status")
    vehicle = makers.join((kind, V5), door)
    assert vehicle.publish(FOREIGN, b"forged", qos) == code
    assert vehicle.publish(door.topic("status"), b"true", qos) in (0, None)
    assert [message.payload for message in watcher.expect_last(b"true")] == [b"true"]


@pytest.mark.parametrize("qos", [1, 2])
def test_publish_for_another_is_acknowledged_and_dropped_before_5_0(
    makers: Makers, core: Way, door: Way, legacy: Dialect, qos: int
) -> None:
    watcher = makers.join(legacy, core)
    watcher.subscribe("vehicles/+/status")
    vehicle = makers.join(legacy, door)
    assert vehicle.publish(FOREIGN, b"forged", qos) in (0, None)
    vehicle.publish(door.topic("status"), b"true", qos)
    assert not vehicle.record.closes
    assert [message.payload for message in watcher.expect_last(b"true")] == [b"true"]


def test_vehicle_without_user_name_is_refused(makers: Makers, door: Way, dialect: Dialect) -> None:
    with pytest.raises(Refused) as refusal:
        makers.join(dialect, door, user=None)
    told_in_5 = dialect[1] == V5 or dialect[0] == "paho"  # paho translates return codes
    assert refusal.value.code == (NOT_AUTHORIZED if told_in_5 else 5)


def test_missing_subscriber_is_reported_by_a_reason_code(makers: Makers, way: Way) -> None:
    publisher = makers.join(("paho", V5), way)
    assert publisher.publish(way.topic("void"), b"x") == NO_MATCHING_SUBSCRIBERS
    makers.join(("paho", V5), way).subscribe(way.topic("void"))
    assert publisher.publish(way.topic("void"), b"x") == 0


def test_unsubscribe_of_an_unknown_filter_is_reported(makers: Makers, way: Way, modern: Dialect) -> None:
    peer = makers.join(modern, way)
    peer.subscribe(way.topic("t"))
    assert peer.unsubscribe(way.topic("other")) == NO_SUBSCRIPTION_EXISTED
    assert peer.unsubscribe(way.topic("t")) == 0


def test_session_may_change_its_mqtt_version(makers: Makers, way: Way) -> None:
    """A 3.1 client and then a 5.0 client use one session; each gets messages in its own version."""
    options = makers.options(("paho", V31), way, clean=False)
    first = makers.fresh("paho")
    first.connect(options)
    first.subscribe(way.topic("t"))
    first.leave()
    makers.join(("mqttjs", V5), way).publish(way.topic("t"), b"x")
    second = makers.join(("mqttjs", V5), way, client_id=options.client_id, clean=False, expiry=3600)
    assert second.expect(1)[0].payload == b"x"
