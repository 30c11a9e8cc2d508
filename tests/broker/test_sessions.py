"""Sessions and their connections: attach, take-over, DISCONNECT, expiry, and what a crash leaves."""

from __future__ import annotations

import pytest

from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.settings import Settings
from mesh.wire import reasons
from mesh.wire.packets import PUBACK, PUBCOMP, PUBREL, Ack, Disconnect, Publish, Will
from mesh.wire.properties import Properties
from tests.support.bench import Bench, Client, subscribe


def test_attach_after_a_crash_repeats_no_message_that_the_client_has() -> None:
    settings = Settings()
    settings.keep_all = True
    bench = Bench(settings)
    vehicle = bench.client("v", "V1", VEHICLE)
    subscribe(vehicle, "vehicles/V1/#")
    vehicle.auto_ack = False
    sender = bench.client("s", "core", TIER)
    for number in range(4):
        sender.publish("vehicles/V1/cmd", b"%d" % number)
    sent = vehicle.take(Publish)
    assert [packet.payload for packet in sent] == [b"0", b"1", b"2", b"3"]
    bench.auto = False
    vehicle.send(Ack(PUBACK, sent[0].packet_id))  # its drop does not reach the disk
    bench = bench.restart()
    bench.auto = True
    # The vehicle has 1 and 2. The acknowledgement of 0 is replayed; 3 was lost on the device link.
    vehicle = Client(bench, "v", "V1", VEHICLE)
    vehicle.auto_ack = False
    vehicle.attach([sent[1].packet_id, sent[2].packet_id])
    vehicle.send(Ack(PUBACK, sent[0].packet_id))
    assert vehicle.take(Publish) == []
    vehicle.live()
    assert [(packet.payload, packet.packet_id, packet.dup) for packet in vehicle.take(Publish)] == [
        (b"3", sent[3].packet_id, False)
    ]
    vehicle.send(Ack(PUBACK, sent[1].packet_id))
    vehicle.send(Ack(PUBACK, sent[2].packet_id))
    vehicle.send(Ack(PUBACK, sent[3].packet_id))
    assert [item for item in bench.store.items.values() if item.kind == 3] == []


def test_a_replayed_pubrel_is_answered_without_an_error() -> None:
    """The edge had dropped the identifier on disk, and its PUBCOMP was lost in the crash; the client saw no break."""
    settings = Settings()
    settings.keep_all = True
    bench = Bench(settings)
    car = bench.client("c", "car", VEHICLE)
    car.auto_ack = False
    car.publish("vehicles/car/status", qos=2, packet_id=7)
    car.send(Ack(PUBREL, 7))
    bench = bench.restart()
    car.bench = bench
    car.take(Ack)
    car.attach([])
    car.send(Ack(PUBREL, 7))
    car.live()
    car.send(Ack(PUBREL, 8))
    answers = [(packet.type, packet.packet_id, packet.reason) for packet in car.take(Ack)]
    assert answers == [(PUBCOMP, 7, reasons.SUCCESS), (PUBCOMP, 8, reasons.PACKET_IDENTIFIER_NOT_FOUND)]


def test_attach_to_an_ended_session_closes_the_connection() -> None:
    vehicle = Client(Bench(), "v", "V1", VEHICLE)
    vehicle.attach([])
    assert vehicle.closed


def test_a_second_connect_takes_over_the_session_with_reason_0x8e() -> None:
    bench = Bench()
    first = bench.client("c", expiry=10)
    second = bench.client("c", clean=False, expiry=10)
    assert first.closed
    assert first.take(Disconnect)[0].reason == reasons.SESSION_TAKEN_OVER
    assert second.connack().session_present


def test_another_identity_cannot_take_over_a_session() -> None:
    bench = Bench()
    first = bench.client("c", "alice", expiry=10)
    second = bench.client("c", "mallory", clean=False, expiry=10)
    assert not first.closed
    assert not second.connack().session_present


@pytest.mark.parametrize("expiry", [None, 0])
def test_a_disconnect_closes_when_the_end_is_durable(expiry: int | None) -> None:
    bench = Bench(auto=False)
    watcher = bench.client("w")
    subscribe(watcher, "gone")
    client = bench.client("c", expiry=100, will=Will("gone", b"", 0, False))
    bench.turn(True)
    properties = Properties()
    properties.session_expiry = expiry
    client.send(Disconnect(0, properties))
    assert not client.closed
    client.send(Disconnect(4, Properties()))  # packets after the first DISCONNECT are ignored
    bench.broker.fail(client.connection, reasons.KEEP_ALIVE_TIMEOUT)
    bench.turn(True)
    assert client.closed
    assert client.take(Disconnect) == []
    bench = bench.restart()
    client.bench = bench
    client.connect(clean=False, expiry=100)
    bench.turn(True)
    assert client.connack().session_present == (expiry is None)
    assert watcher.messages() == []


def test_a_session_ends_when_its_expiry_has_passed() -> None:
    bench = Bench()
    client = bench.client("c", expiry=10)
    subscribe(client, "a")
    client.lose()
    bench.clock.now += 11
    bench.broker.tick()
    bench.turn()
    assert len(bench.broker.sessions) == 0
    assert bench.store.items == {}
    assert not bench.client("c", clean=False).connack().session_present


def test_a_session_without_expiry_is_not_present_after_a_crash() -> None:
    settings = Settings()
    settings.keep_all = True  # as on an edge
    bench = Bench(settings)
    subscribe(bench.client("w"), "wills")
    bench.client("c", will=Will("wills", b"gone"))
    bench = bench.restart()
    watcher = bench.client("w", clean=False)
    assert not watcher.connack().session_present
    subscribe(watcher, "wills")
    again = bench.client("c", clean=False)
    assert not again.connack().session_present
    assert watcher.messages() == [b"gone"]


def test_a_forgotten_session_ends_when_the_longest_expiry_is_lowered() -> None:
    bench = Bench()
    bench.client("old", "app", protocol=4, clean=False).lose()
    assert len(bench.broker.sessions) == 1
    bench.settings.max_session_expiry = 100
    bench = bench.restart()
    bench.clock.now += 99
    bench.broker.tick()
    assert len(bench.broker.sessions) == 1
    bench.clock.now += 2
    bench.broker.tick()
    assert len(bench.broker.sessions) == 0
