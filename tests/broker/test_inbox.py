"""Inboxes: messages for vehicles without a session, and their handing over to the first client."""

from __future__ import annotations

import pytest

from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.settings import DROP_OLDEST, REJECT, Settings
from mesh.session.message import Message, message_of
from mesh.wire import reasons
from mesh.wire.packets import Ack, Publish
from mesh.wire.properties import Properties
from tests.support.bench import Bench, inbox_rules, subscribe


@pytest.mark.parametrize("clean", [False, True])
def test_an_inbox_keeps_commands_for_a_vehicle_without_a_session(clean: bool) -> None:
    settings = Settings()
    settings.keep_all = True
    bench = Bench(settings, inbox=inbox_rules())
    core = bench.client("core", "core", TIER)
    for number in range(3):
        core.publish("vehicles/V1/cmd/x", b"%d" % number)
    core.publish("vehicles/V1/other")
    assert [ack.reason for ack in core.take(Ack)] == [0, 0, 0, 0x10]
    bench = bench.restart()
    vehicle = bench.client("v", "V1", VEHICLE, clean=clean, expiry=10)
    if clean:
        assert vehicle.messages() == []
        subscribe(vehicle, "vehicles/V1/#")
    assert vehicle.messages() == [b"0", b"1", b"2"]


@pytest.mark.parametrize("bound", ["messages", "bytes"])
@pytest.mark.parametrize("when_full", [REJECT, DROP_OLDEST])
def test_a_full_inbox_refuses_or_drops_the_oldest(when_full: int, bound: str) -> None:
    settings = Settings()
    settings.keep_all = True
    settings.inbox_when_full = when_full
    if bound == "messages":
        settings.inbox_messages = 3
    else:
        settings.inbox_bytes = 3 * Message("vehicles/V1/cmd/x", b"0" * 100, 1, False, b"", 0.0).size()
    bench = Bench(settings, inbox=inbox_rules())
    core = bench.client("core", "core", TIER)
    for number in range(5):
        core.publish("vehicles/V1/cmd/x", b"%d" % number * 100)
    codes = [ack.reason for ack in core.take(Ack)]
    assert codes == ([0, 0, 0, 0x97, 0x97] if when_full == REJECT else [0] * 5)
    bench = bench.restart()
    vehicle = bench.client("v", "V1", VEHICLE)
    subscribe(vehicle, "vehicles/V1/#")
    first = 0 if when_full == REJECT else 2
    assert vehicle.messages() == [b"%d" % number * 100 for number in range(first, first + 3)]


def test_a_recovered_session_has_the_limits_of_its_kind() -> None:
    """The inbox drops its oldest message; a client's own session never does, also after a crash."""
    settings = Settings()
    settings.max_queue_messages = 3
    settings.inbox_messages = 2
    settings.inbox_when_full = DROP_OLDEST
    bench = Bench(settings)
    car = bench.client("c", "car", VEHICLE, clean=False, expiry=1000)
    subscribe(car, "vehicles/car/cmd/#")
    car.lose()
    bench = bench.restart()
    sender = bench.client("s", "backend")
    sender.auto_ack = False
    for payload in (b"1", b"2", b"3", b"4"):
        sender.publish("vehicles/car/cmd/x", payload)
    assert [packet.reason for packet in sender.take(Ack)] == [0, 0, 0, reasons.QUOTA_EXCEEDED]
    car.bench = bench
    car.connect(clean=False, expiry=1000)
    assert car.messages() == [b"1", b"2", b"3"]


def full_bench() -> Bench:
    """An edge with 3,000 messages in one inbox."""
    settings = Settings()
    settings.inbox_messages, settings.keep_all = 3000, True
    bench = Bench(settings, inbox=inbox_rules())
    for number in range(3000):
        message = message_of(Publish("vehicles/V/cmd/x", b"%d" % number, 1), bench.clock(), True)
        assert bench.broker.dispatcher.route(message, None, None) == reasons.SUCCESS
    bench.turn()
    return bench


def test_a_full_inbox_becomes_the_session_of_the_first_client_at_once() -> None:
    bench = full_bench()
    client = bench.client("c", "V", VEHICLE, clean=False, expiry=100, auto_ack=False)
    assert not client.connack().session_present
    (session,) = bench.broker.sessions.all()
    assert session.key == (VEHICLE, "V", "c")
    assert len(session.outbound) == 3000
    assert list(session.interests) == ["vehicles/V/cmd/#"]
    bench = bench.restart()
    client = bench.client("c", "V", VEHICLE, clean=False, expiry=100)
    assert client.connack().session_present
    assert client.messages() == [b"%d" % number for number in range(3000)]


def test_an_inbox_survives_a_client_that_cannot_be_accepted() -> None:
    bench = full_bench()
    properties = Properties()
    properties.maximum_packet_size = 2
    client = bench.client("c", "V", VEHICLE, clean=False, properties=properties)
    assert client.closed
    (session,) = bench.broker.sessions.all()
    assert session.inbox
    again = bench.restart().client("c", "V", VEHICLE, clean=False, expiry=100)
    assert len(again.messages()) == 3000
