"""Publishers wait while a connected receiver is behind, for no longer than the patience, once."""

from __future__ import annotations

import pytest

from mesh.broker.principal import BACKEND, TIER, VEHICLE
from mesh.broker.settings import Settings
from mesh.broker.slowdown import RELEASED
from mesh.wire.packets import PUBACK, Ack, Publish, Subscribe, Subscription
from tests.support.bench import Bench, Client

BEHIND = 64
PATIENCE = 10.0


@pytest.fixture
def bench() -> Bench:
    settings = Settings()
    settings.keep_all = True
    settings.in_flight = 8
    settings.queue_patience = PATIENCE
    return Bench(settings)


def core(bench: Bench, name: str = "core", auto_ack: bool = False) -> Client:
    client = bench.client(name, name, TIER, auto_ack, expiry=100)
    client.send(Subscribe(1, [Subscription("vehicles/#", 1)]))
    return client


def report(vehicle: Client, count: int) -> None:
    for _ in range(count):
        vehicle.publish("vehicles/V1/status")


def answers(client: Client) -> int:
    return len([ack for ack in client.take(Ack) if ack.type == PUBACK and ack.reason == 0])


def read(client: Client, count: int) -> None:
    for _ in range(count):
        packet = next(packet for packet in client.packets if isinstance(packet, Publish))
        client.packets.remove(packet)
        client.send(Ack(PUBACK, packet.packet_id))


def wait(bench: Bench, seconds: float) -> None:
    bench.clock.now += seconds
    bench.broker.tick()
    bench.turn()


def test_vehicles_wait_while_a_core_is_behind(bench: Bench) -> None:
    receiver, vehicle = core(bench), bench.client("v", "V1", VEHICLE)
    report(vehicle, 8 + BEHIND)
    assert answers(vehicle) == 8 + BEHIND
    report(vehicle, 10)
    assert answers(vehicle) == 0
    assert bench.broker.status().delayed == 10
    read(receiver, 10 + BEHIND // 2 - 1)
    assert answers(vehicle) == 0
    read(receiver, 1)
    assert answers(vehicle) == 10
    assert bench.broker.status().delayed == 0


def test_the_patience_is_spent_once(bench: Bench) -> None:
    receiver, vehicle = core(bench), bench.client("v", "V1", VEHICLE)
    report(vehicle, 8 + BEHIND + 10)
    assert answers(vehicle) == 8 + BEHIND
    wait(bench, PATIENCE - 1)
    assert answers(vehicle) == 0
    wait(bench, 1)
    assert answers(vehicle) == 10
    report(vehicle, 10)
    assert answers(vehicle) == 10
    read(receiver, 20 + BEHIND // 2)  # it has drained: from now on there is patience again
    report(vehicle, BEHIND)
    assert answers(vehicle) == BEHIND // 2
    assert bench.broker.status().delayed == BEHIND // 2


def test_a_core_that_disconnects_delays_no_vehicle(bench: Bench) -> None:
    receiver, vehicle = core(bench), bench.client("v", "V1", VEHICLE)
    report(vehicle, 8 + BEHIND + 10)
    receiver.lose()
    report(vehicle, 10)
    assert answers(vehicle) == 8 + BEHIND + 20


def test_a_message_waits_for_each_core_that_is_behind(bench: Bench) -> None:
    first, second = core(bench, "one"), core(bench, "two")
    vehicle = bench.client("v", "V1", VEHICLE)
    report(vehicle, 8 + BEHIND + 1)
    assert answers(vehicle) == 8 + BEHIND
    read(first, 8 + BEHIND + 1)
    assert answers(vehicle) == 0
    read(second, 8 + BEHIND + 1)
    assert answers(vehicle) == 1


def test_a_waiting_vehicle_may_disconnect(bench: Bench) -> None:
    receiver, vehicle = core(bench), bench.client("v", "V1", VEHICLE)
    report(vehicle, 8 + BEHIND + 10)
    vehicle.lose()
    read(receiver, 8 + BEHIND + 10)
    assert bench.broker.status().delayed == 0


@pytest.mark.parametrize("expiry", [0, 100])
def test_publishers_to_a_vehicle_or_between_back_ends_do_not_wait(bench: Bench, expiry: int) -> None:
    bench.settings.keep_all = False
    receiver = bench.client("r", "other", BACKEND, False, expiry=expiry)
    receiver.send(Subscribe(1, [Subscription("vehicles/#", 1)]))
    sender = bench.client("s", "app", BACKEND)
    report(sender, 8 + BEHIND + 10)
    assert answers(sender) == 8 + BEHIND + 10


def test_large_messages_are_counted_in_bytes(bench: Bench) -> None:
    core(bench)
    vehicle = bench.client("v", "V1", VEHICLE)
    for _ in range(5):
        vehicle.publish("vehicles/V1/status", b"x" * (1 << 19))
    assert answers(vehicle) == 2


def test_a_turn_releases_a_bounded_number_of_answers(bench: Bench) -> None:
    bench.settings.receive_maximum = 10_000
    core(bench)
    vehicle = bench.client("v", "V1", VEHICLE)
    report(vehicle, 8 + BEHIND + 2 * RELEASED + 1)
    assert answers(vehicle) == 8 + BEHIND
    bench.clock.now += PATIENCE
    left: list[int] = []
    more = True
    while more:
        more = bench.broker.end_turn()
        left.append(bench.broker.status().delayed)
    assert left == [RELEASED + 1, 1, 0]
    bench.turn()
    assert answers(vehicle) == 2 * RELEASED + 1
