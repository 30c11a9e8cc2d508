"""Messages wait for disconnected vehicles, also when every edge is killed."""

from __future__ import annotations

import asyncio
from functools import partial

from mesh.wire.packets import MQTT5, MQTT311
from tests.e2e.checker import check_kept, check_repeats
from tests.e2e.fleet import command
from tests.support.client import Client
from tests.support.mesh import Mesh, edges, kill_and_wait
from tests.support.waiting import until


async def queued_messages_survive_killed_edges(mesh: Mesh, vehicles: int, messages: int) -> None:
    """QoS 1: half of the vehicles have a durable session, the other half have never connected (inbox)."""
    cars = [
        Client(f"sleeper-{number:02}", MQTT311 if number % 2 else MQTT5, clean=False, expiry=3600)
        for number in range(vehicles)
    ]
    for car in cars[: vehicles // 2]:
        await car.connect(mesh.vehicles)
        await car.subscribe(f"vehicles/{car.name}/cmd/#")
        car.leave()
    backend = await Client("alarm-clock", expiry=3600).connect(mesh.backends)
    backend.window = 500
    await backend.publish_all((command(car.name), str(number)) for number in range(messages) for car in cars)
    assert len(backend.acked) == vehicles * messages, backend.refused[:3]
    owners = mesh.owners([car.name for car in cars])
    assert set(owners.values()) == set(edges(mesh)), "every edge must serve some vehicles"

    await kill_and_wait(mesh, *edges(mesh))
    await asyncio.gather(*(car.connect(mesh.vehicles) for car in cars))
    for car in cars:
        sent = [message for message in backend.acked if message[0] == command(car.name)]
        await until(partial(_has, car, messages), f"all messages at {car.name}")
        check_kept(sent, car.received, car.name)
        check_repeats(car.received, car.name)
        assert not car.closes
    for client in [*cars, backend]:
        client.leave()


def _has(car: Client, messages: int) -> bool:
    return len(set(car.payloads(command(car.name)))) == messages
