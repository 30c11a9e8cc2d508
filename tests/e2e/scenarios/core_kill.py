"""A core is killed with kill -9: its back ends reconnect and lose no message; vehicles stay connected."""

from __future__ import annotations

import asyncio

from tests.e2e.fleet import Fleet
from tests.support.client import Client
from tests.support.mesh import Mesh, kill_and_wait


async def traffic_survives_a_killed_core(mesh: Mesh, vehicles: int, kills: int) -> None:
    """Durable sessions of back ends and their unacknowledged publishes survive."""
    fleet = Fleet(mesh, "orphan", vehicles, stock=4)
    await fleet.connect()
    fleet.repeats_without_dup = True  # a back end's publish repeated after the crash is a new message
    reconnecting = asyncio.create_task(keep_connected(mesh, fleet.sender, fleet.reader))
    try:
        async with fleet.traffic():
            for _ in range(kills):
                await fleet.rounds(1)
                await kill_and_wait(mesh, "core")
            await fleet.rounds(2)
        for backend in (fleet.sender, fleet.reader):
            assert len(backend.closes) >= kills
            assert backend.connack is not None
            assert backend.connack.session_present
    finally:
        reconnecting.cancel()
        await asyncio.gather(reconnecting, return_exceptions=True)
        await fleet.leave()


async def keep_connected(mesh: Mesh, *backends: Client) -> None:
    """Reconnect back ends whenever they are disconnected."""
    while True:
        for backend in backends:
            backend.clean = False
            if not backend.connected:
                await backend.reconnect(mesh.backends)
        await asyncio.sleep(0.05)
