"""Long work of a core is done in slices: what one turn does is bounded, whatever waits. The tests count, they do not
measure time."""

from __future__ import annotations

import asyncio

import pytest

from mesh.broker.principal import BACKEND
from mesh.broker.work import STEPS
from mesh.core import downstream
from mesh.version import compiled
from mesh.wire.packets import Publish, Subscribe, Subscription
from tests.core.harness import PATIENCE, Edge, Mesh, Pipe
from tests.core.pressed import FLIGHT, QUEUE, SlowOwners, codes, full_vehicle, numbers, read_all
from tests.support.bench import Client

MANY = 3000
TURN = STEPS // 4 + 64  # a generous bound of what one turn does of anything


def _subscribe(first: int, last: int) -> Subscribe:
    return Subscribe(1, [Subscription(f"vehicles/+/{number}", 1) for number in range(first, last)])


@pytest.fixture
def wide() -> Mesh:
    """Back ends and the core may have many publishes without an answer."""
    mesh = Mesh(1)
    settings = mesh.edges["edge-1"].settings
    settings.max_queue_messages, settings.in_flight = QUEUE, FLIGHT
    settings.receive_maximum = mesh.core.settings.receive_maximum = 2 * MANY
    mesh.connect()
    return mesh


def settle(mesh: Mesh) -> None:
    """Let all bytes arrive, also of long queues."""
    for _ in range(20):
        mesh.run()


def publish(backend: Client, first: int, last: int, topic: str = "vehicles/V1/cmd", qos: int = 1) -> None:
    """Publish without a turn of the core between the messages."""
    for number in range(first, last):
        packet = Publish(topic, b"%d" % number, qos, False, False, number % 65_535 + 1)
        backend.bench.broker.receive(backend.connection, packet)


def turns(mesh: Mesh) -> int:
    """End the turns of the core until it has no work; returns how many there were."""
    count = 1
    while mesh.core.broker.end_turn():
        count += 1
    return count


def greet(mesh: Mesh, name: str = "edge-1") -> None:
    """Connect to the edge, up to CONNACK and what follows it at once."""
    mesh.core.turn()
    mesh.pipes[name] = Pipe(mesh.links[name], mesh.edges[name])
    mesh.links[name].flush()
    mesh.edges[name].turn()
    assert mesh.links[name].up


@pytest.mark.parametrize("held", [False, True])
def test_a_lost_link_is_followed_up_in_slices(wide: Mesh, held: bool) -> None:
    vehicle = full_vehicle(wide) if held else wide.vehicle(1, "cmd")
    backend = wide.core.client("b", "app", BACKEND)
    link, pipe = wide.links["edge-1"], wide.pipes["edge-1"]
    pipe.mute = not held
    publish(backend, 100, 100 + MANY)
    wide.run()
    assert (codes(backend), link.spool.messages) == ([], 0)
    wide.core.turn()
    pipe.cut()
    assert 0 < link.spool.messages <= TURN
    publish(backend, 100 + MANY, 110 + MANY)  # they wait behind the others
    assert link.spool.messages <= TURN
    while link.spool.messages < MANY + 10:
        before = link.spool.messages
        wide.core.broker.end_turn()
        assert before < link.spool.messages <= before + TURN
    wide.run()
    assert codes(backend) == [0] * (MANY + 10)
    wide.edges["edge-1"].settings.max_queue_messages = 2 * MANY
    wide.connect("edge-1")
    got = read_all(wide, vehicle)
    settle(wide)
    got += vehicle.messages()
    assert got[-MANY - 10 :] == numbers(100, 110 + MANY)
    assert (link.spool.messages, link.status("").held, link.status("").waiting) == (0, 0, 0)


def test_a_link_that_comes_back_soon_sends_what_is_not_spooled_yet(wide: Mesh) -> None:
    vehicle = wide.vehicle(1, "cmd")
    backend = wide.core.client("b", "app", BACKEND)
    link = wide.links["edge-1"]
    for first in (0, MANY):
        wide.pipes["edge-1"].mute = True
        publish(backend, first, first + MANY)
        wide.core.turn()
        wide.pipes["edge-1"].cut()
        wide.pipes["edge-1"] = Pipe(link, wide.edges["edge-1"])
        link.flush()
        wide.pipes["edge-1"].cut()  # lost again, in the middle
        wide.pipes["edge-1"] = Pipe(link, wide.edges["edge-1"])
        settle(wide)
    assert codes(backend) == [0] * (2 * MANY)
    assert sorted(set(vehicle.messages()), key=int) == numbers(0, 2 * MANY)
    assert (link.spool.messages, link.status("").waiting) == (0, 0)


def test_held_messages_are_refused_in_slices(wide: Mesh) -> None:
    full_vehicle(wide)
    backend = wide.core.client("b", "app", BACKEND)
    link = wide.links["edge-1"]
    publish(backend, 100, 100 + MANY)
    wide.run()
    assert link.status("").held == MANY
    wide.core.turn()
    wide.clock.now += PATIENCE
    link.tick()
    assert 0 < link.status("").refused <= TURN
    while link.status("").held:
        before = link.status("").refused
        wide.core.broker.end_turn()
        assert before < link.status("").refused <= before + TURN
    wide.run()
    assert codes(backend) == [0x97] * MANY


def test_the_vehicles_that_are_not_full_any_more_drain_in_slices(wide: Mesh) -> None:
    """All queues have drained while the link was lost."""
    backend = wide.core.client("b", "app", BACKEND)
    link = wide.links["edge-1"]
    vehicles = 100
    for number in range(vehicles):
        wide.owners[f"W{number}"] = "edge-1"
        link._downstream.signal(f"W{number}", True)
        publish(backend, 1 + 20 * number, 21 + 20 * number, f"vehicles/W{number}/cmd")
    wide.run()
    assert link.status("").held == 20 * vehicles
    wide.pipes["edge-1"].cut()
    wide.run()
    greet(wide)
    assert 0 < 20 * vehicles - link.status("").held <= TURN
    settle(wide)
    assert (link.status("").pressed, link.status("").held, link.spool.messages) == (0, 0, 0)


def test_the_messages_of_a_look_up_are_sent_in_slices(wide: Mesh) -> None:
    async def run() -> None:
        vehicle, backend = wide.vehicle(1, "cmd"), wide.core.client("b", "app", BACKEND)
        slow = SlowOwners()
        known, wide.router._owners = wide.router._owners, slow
        publish(backend, 0, MANY)
        wide.core.turn()
        slow.answer.set()
        async with asyncio.timeout(5):
            while wide.router._pending_count == MANY:
                await asyncio.sleep(0)
        assert wide.router._pending_count >= MANY - TURN
        wide.router._owners = known
        publish(backend, MANY, MANY + 10)  # the owner is known, but older messages wait
        while wide.router._pending_count:
            before = wide.router._pending_count
            wide.core.broker.end_turn()
            assert before - TURN <= wide.router._pending_count < before
        assert not wide.router._pending
        settle(wide)
        assert vehicle.messages() == numbers(0, MANY + 10)
        assert codes(backend) == [0] * (MANY + 10)

    asyncio.run(run())


@pytest.mark.skipif(compiled(), reason="a constant of a compiled module cannot be changed")
def test_the_marks_of_repeats_are_removed_in_slices(wide: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.core.downstream._GAP", 10)
    wide.vehicle(1, "cmd")
    backend = wide.core.client("b", "app", BACKEND)
    link = wide.links["edge-1"]
    wide.pipes["edge-1"].mute = True
    publish(backend, 0, MANY)
    wide.core.turn()
    wide.pipes["edge-1"].cut()
    wide.run()
    for delivery in link._downstream.outbound.waiting:
        delivery.dup = True
    link._downstream._distrust = True
    greet(wide)
    left = sum(delivery.dup for delivery in link._downstream.outbound.waiting)
    assert 0 < left < MANY
    assert link.status("").in_flight == 0
    assert link._downstream._stops & downstream.REPEATS
    settle(wide)
    assert link.status("").waiting == 0


def test_the_retained_messages_of_the_fleet_are_looked_up_in_slices(wide: Mesh) -> None:
    backend = wide.core.client("b", "app", BACKEND)
    for number in range(MANY):
        packet = Publish(f"fleet/{number}", b"x", 0, True, False, 0)
        wide.core.broker.receive(backend.connection, packet)
    wide.run()
    name = wide.add_edge()
    link = wide.links[name]
    greet(wide, name)
    assert not link._backfill.active  # it looks for them
    assert turns(wide) > 1
    settle(wide)
    assert len(wide.edges[name].broker.retained.items("fleet/#")) == MANY


def test_many_filters_are_brought_up_to_date_in_slices(wide: Mesh) -> None:
    backend = wide.core.client("b", "app", BACKEND)
    link, edge = wide.links["edge-1"], wide.edges["edge-1"]
    wide.core.settings.max_subscriptions = edge.settings.max_subscriptions = 2 * MANY
    for number in range(0, MANY, 500):
        backend.send(_subscribe(number, number + 500))
    wide.run()
    wide.pipes["edge-1"].cut()
    wide.edges["edge-1"] = Edge(None, wide.clock)  # it has lost the session
    wide.edges["edge-1"].settings.max_subscriptions = 2 * MANY
    greet(wide)
    asked = len(link._client._requests.open) + len(link._client._requests.waiting)
    assert 0 < asked <= TURN
    settle(wide)
    assert len(wide.edges["edge-1"].broker.subscriptions.filters()) == MANY + 1
