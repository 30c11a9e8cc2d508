"""A rolling change of two doors, two edges and two cores under traffic in both directions, by ``mesh up`` itself.

Edges and cores are restarted first: meanwhile no connection of a vehicle is closed. Back ends are told before their
core stops, as vehicles are before their front door stops, and connect again; no message is lost. The controller, or a
node, is killed in the midst: the change is finished by itself.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager

import psutil
import pytest

from mesh.cluster.run import load_run
from mesh.topology.load import load
from mesh.wire.packets import MQTT5
from tests.e2e.checker import missing
from tests.e2e.fleet import Fleet
from tests.support.client import Client
from tests.support.cluster import Cluster
from tests.support.mesh import replaced
from tests.support.ports import free_ports
from tests.support.session import session
from tests.support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.long]
VEHICLES = 40

HITLESS = ("edge-1", "edge-2", "core-b", "core")
DOORS = ("door-b", "door")

SHUTTING_DOWN = "DISCONNECT 0x8b"

_sizes = itertools.count(100_000)


class Pairs(Cluster):
    """Two doors, two edges, two cores, each with a port of its own."""

    def write(self) -> None:
        super().write()
        self.second_door, self.second_core = free_ports(2)
        text = self.file.read_text()
        added = (("front_doors", "door-b", self.second_door), ("cores", "core-b", self.second_core))
        for kind, name, port in added:
            text = text.replace(f"{kind}: [", f'{kind}: [{{name: {name}, listen: [{{mqtt: "127.0.0.1:{port}"}}]}}, ')
        self.file.write_text(f"{text}map: {{cache: {next(_sizes)}}}\n")

    def restart_all(self) -> str:
        """Change what needs a restart of each node, and run ``mesh up``; returns what it prints."""
        lines = [line for line in self.file.read_text().splitlines() if not line.startswith("map:")]
        self.file.write_text("\n".join([*lines, f"map: {{cache: {next(_sizes)}}}\n"]))
        return self.command("up", str(self.file))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    running = Pairs(tmp_path_factory.mktemp("rolling"), ["edge-1", "edge-2"])
    running.start()
    try:
        yield running
    finally:
        running.stop()


def kill_controller(mesh: Pairs) -> None:
    run = load_run(load(mesh.file).data)
    assert run is not None
    titles = {pid: " ".join(psutil.Process(pid).cmdline()) for pid in session(run)}
    (controller,) = (pid for pid, title in titles.items() if "ray::Controller" in title)
    os.kill(controller, signal.SIGKILL)


def kill_an_edge(mesh: Pairs) -> None:
    """The one that was restarted first, while another is on its turn."""
    mesh.kill("edge-1")


@asynccontextmanager
async def connected(port: int, clients: Sequence[Client]) -> AsyncIterator[None]:
    """Connect these clients again whenever they are disconnected."""

    async def again() -> None:
        while True:
            for client in clients:
                if not client.connected:
                    await client.reconnect(port)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def a_fleet(mesh: Pairs, prefix: str) -> Fleet:
    """Vehicles and back ends with durable sessions."""
    fleet = Fleet(mesh, prefix, VEHICLES, stock=0)
    fleet.repeats_without_dup = True  # QoS 1: what a back end repeats after its core's restart is a new message
    for client in (*fleet.cars, fleet.sender, fleet.reader):
        client.clean, client.expiry = False, 3600
    await fleet.connect()
    return fleet


async def all_nodes_are_restarted(mesh: Pairs, prefix: str, disturb: Callable[[Pairs], None]) -> None:
    fleet = await a_fleet(mesh, prefix)
    other = Client(f"{prefix}-other", MQTT5, clean=False, expiry=3600)
    await other.connect(mesh.second_core)
    await other.subscribe("vehicles/+/status")
    try:
        assert set(fleet.edge_of.values()) == {"edge-1", "edge-2"}, "each edge must serve some vehicles"
        owners = fleet.edge_of
        async with (
            connected(mesh.backends, (fleet.sender, fleet.reader)),
            connected(mesh.second_core, (other,)),
            connected(mesh.vehicles, fleet.cars),
            fleet.traffic(),
        ):
            await fleet.rounds(2)
            before = {name: mesh.pid(name) for name in (*HITLESS, *DOORS)}
            await asyncio.to_thread(mesh.restart_all)
            await until(lambda: mesh.pid("edge-1") not in (0, before["edge-1"]), "a restart of edge-1", 60.0)
            await asyncio.to_thread(disturb, mesh)
            hitless = {name: before[name] for name in HITLESS}
            await until(lambda: replaced(mesh, hitless), "restarts of the edges and the cores", 120.0)
            assert mesh.pid("door") == before["door"], "the vehicles' door is restarted last"
            assert {car.name: car.closes for car in fleet.cars if car.closes} == {}
            await until(lambda: replaced(mesh, before), "restarts of the doors", 120.0)
            await until(lambda: all(car.closes for car in fleet.cars), "the ends of the old connections")
            await until(lambda: all(car.connected for car in fleet.cars), "new connections of the vehicles")
            told = [car for car in fleet.cars if SHUTTING_DOWN in car.closes]
            assert len(told) == sum(car.protocol == MQTT5 for car in fleet.cars)
            for car in fleet.cars:
                car.closes.clear()  # the check that follows finds those that need not be
            await fleet.rounds(2)
        assert fleet.edge_of == owners
        reports = [message for car in fleet.cars for message in car.acked]
        await until(lambda: not missing(reports, other.received), "reports at the other core")
        for backend in (fleet.sender, fleet.reader, other):
            assert backend.closes[0] == SHUTTING_DOWN
            assert backend.connack is not None
            assert backend.connack.session_present
    finally:
        other.leave()
        await fleet.leave()


def test_all_nodes_are_restarted_and_no_message_is_lost_although_the_controller_is_killed(mesh: Pairs) -> None:
    asyncio.run(all_nodes_are_restarted(mesh, "controller", kill_controller))


def test_a_node_that_is_killed_in_the_midst_does_not_stop_the_change(mesh: Pairs) -> None:
    asyncio.run(all_nodes_are_restarted(mesh, "edge", kill_an_edge))
