"""A back end at the core and a vehicle at the door exchange commands and reports, both with the same client."""

from __future__ import annotations

import pytest

from tests.stock.makers import Dialect, Makers
from tests.stock.way import Way
from tests.support.shows import shows

pytestmark = pytest.mark.e2e


@shows(v3="7.0.0-2")
def test_command_and_report_are_delivered(makers: Makers, core: Way, door: Way, dialect: Dialect) -> None:
    backend = makers.join(dialect, core)
    vehicle = makers.join(dialect, door)
    backend.subscribe(door.topic("status"))
    vehicle.subscribe(door.topic("cmd"))
    assert backend.publish(door.topic("cmd"), b"horn", 1) in (0, None)
    command = vehicle.expect(1)[0]
    assert (command.topic, command.payload, command.qos) == (door.topic("cmd"), b"horn", 1)
    vehicle.publish(door.topic("status"), b"done: " + command.payload)
    report = backend.expect(1)[0]
    assert (report.topic, report.payload, report.qos) == (door.topic("status"), b"done: horn", 1)


def test_burst_of_commands_arrives_in_order(makers: Makers, core: Way, door: Way, dialect: Dialect) -> None:
    backend = makers.join(dialect, core)
    vehicle = makers.join(dialect, door)
    vehicle.subscribe(door.topic("cmd"))
    backend.pipeline(door.topic("cmd"), [str(number).encode() for number in range(200)])
    assert [int(message.payload) for message in vehicle.expect(200)] == list(range(200))
