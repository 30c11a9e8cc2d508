"""Every vehicle has one edge, and keeps it."""

from __future__ import annotations

import asyncio

from tests.e2e.fleet import Fleet, command
from tests.support.client import Client
from tests.support.mesh import Mesh, edges
from tests.support.waiting import until


async def vehicles_keep_their_edge(mesh: Mesh, vehicles: int) -> None:
    """No vehicle moves when it reconnects, when the whole mesh restarts, or when an edge is added."""
    fleet = Fleet(mesh, "sticky", vehicles, stock=0)
    await fleet.connect()
    owners = fleet.edge_of
    assert set(owners.values()) == set(edges(mesh)), "every edge must serve some vehicles"
    await check_served(fleet, owners)

    for car in fleet.cars:
        car.drop() if car.protocol == 4 else car.leave()
    await asyncio.gather(*(car.connect(mesh.vehicles) for car in fleet.cars))
    await check_served(fleet, owners)

    await fleet.leave()
    await asyncio.to_thread(mesh.restart)
    await fleet.connect()
    await check_served(fleet, owners)
    for car in fleet.cars:
        assert car.connack is not None
        assert car.connack.session_present == (not car.clean), f"{car.name}: wrong Session Present"

    pids = {name: mesh.pid(name) for name in mesh.names()}
    async with fleet.traffic():
        await fleet.rounds(1)
        await asyncio.to_thread(mesh.add_edge, "edge-3")
        await fleet.rounds(1)
    await check_served(fleet, owners)
    assert {name: mesh.pid(name) for name in pids} == pids, "adding an edge may restart no node"
    await check_new_vehicles_use_edge(mesh, "edge-3")
    await fleet.leave()


def served(mesh: Mesh, edge: str) -> float:
    """The number of vehicles connected to an edge through all front doors."""
    figures = mesh.figures(edge)
    return sum(value for series, value in figures.items() if series.startswith("mesh_link_connections{"))


async def check_served(fleet: Fleet, owners: dict[str, str]) -> None:
    """The map is unchanged, and each edge has the connections of its vehicles."""
    assert fleet.edge_of == owners
    shares = {edge: sum(owner == edge for owner in owners.values()) for edge in set(owners.values())}
    await until(
        lambda: all(served(fleet.mesh, edge) == share for edge, share in shares.items()),
        f"connections as in the map: {shares}",
    )


async def check_new_vehicles_use_edge(mesh: Mesh, edge: str) -> None:
    """New vehicles are spread over all edges, including the new one."""
    cars = [Client(f"new-{number}", clean=True) for number in range(40)]
    await asyncio.gather(*(car.connect(mesh.vehicles) for car in cars))
    owners = mesh.owners([car.name for car in cars])
    there = [car for car in cars if owners[car.name] == edge]
    assert there, f"{edge} serves no new vehicle"
    await there[0].subscribe(f"vehicles/{there[0].name}/cmd/#")
    backend = await Client("newcomers-backend").connect(mesh.backends)
    await backend.publish_all([(command(there[0].name), "1")])
    await there[0].until(lambda: there[0].received, "a command through the new edge")
    for client in [*cars, backend]:
        client.leave()
