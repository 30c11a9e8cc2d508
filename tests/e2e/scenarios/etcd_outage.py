"""etcd is unavailable for a while."""

from __future__ import annotations

import asyncio

from mesh.wire.packets import MQTT5, MQTT311
from tests.e2e.fleet import Fleet
from tests.support.client import Client
from tests.support.mesh import Mesh, edges, kill_and_wait
from tests.support.waiting import until

REFUSALS = {MQTT311: (3,), MQTT5: (0x88, 0x89)}  # server unavailable; server unavailable or server busy


async def traffic_survives_an_etcd_outage(mesh: Mesh, vehicles: int, seconds: float) -> None:
    """Known vehicles stay and may reconnect, unknown ones are refused, an edge restarts; then etcd returns."""
    fleet = Fleet(mesh, "mapless", vehicles, stock=2)
    await fleet.connect()
    try:
        async with fleet.traffic():
            await fleet.rounds(1)
            await asyncio.to_thread(mesh.stop_etcd)
            end = asyncio.get_running_loop().time() + seconds
            await known_vehicles_reconnect(mesh, fleet)
            await unknown_vehicles_are_refused(mesh)
            await fleet.rounds(2)
            await kill_and_wait(mesh, edges(mesh)[0])
            await fleet.rounds(2)
            await asyncio.sleep(max(0.0, end - asyncio.get_running_loop().time()))
            await fleet.rounds(1)
            pids = {name: mesh.pid(name) for name in mesh.names()}
            await asyncio.to_thread(mesh.start_etcd)
            await until(
                lambda: all(mesh.figures(name).get("mesh_etcd_up") for name in mesh.names()),
                "all nodes connected to etcd again",
            )
            await fleet.rounds(1)
        newcomers = [Client(f"after-{number}") for number in range(10)]
        for car in newcomers:
            await car.reconnect(mesh.vehicles)
        for car in newcomers:
            car.leave()
        assert {name: mesh.pid(name) for name in mesh.names()} == pids, "no node may restart when etcd returns"
    finally:
        await fleet.leave()
        await asyncio.to_thread(mesh.start_etcd)


async def known_vehicles_reconnect(mesh: Mesh, fleet: Fleet) -> None:
    """Vehicles that the door knows can disconnect and reconnect."""
    for car in [car for car in fleet.cars if not car.clean][:10]:
        car.leave()
        await car.connect(mesh.vehicles)


async def unknown_vehicles_are_refused(mesh: Mesh) -> None:
    """An unknown vehicle gets a CONNACK with the reason code of its MQTT version."""
    for protocol, expected in REFUSALS.items():
        unknown = Client(f"unknown-{protocol}", protocol)
        assert await unknown.knock(mesh.vehicles) in expected, unknown.connack
