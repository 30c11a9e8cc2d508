"""A core is killed with kill -9: its back ends connect again and miss nothing; vehicles notice nothing."""

from __future__ import annotations

import asyncio

from tests.e2e.fleet import Fleet
from tests.support.client import Client
from tests.support.mesh import Mesh, kill_and_wait


async def core_is_killed(mesh: Mesh, vehicles: int, kills: int) -> None:
    """Durable sessions of back ends and their unacknowledged publishes survive."""
    fleet = Fleet(mesh, "orphan", vehicles, stock=4)
    await fleet.connect()
    fleet.repeats_without_dup = True  # a back end that publishes again after its core died makes a new message of it
    persistence = asyncio.create_task(stay(mesh, fleet.sender, fleet.reader))
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
        persistence.cancel()
        await asyncio.gather(persistence, return_exceptions=True)
        await fleet.leave()


async def stay(mesh: Mesh, *backends: Client) -> None:
    """Connect back ends again whenever they are not."""
    while True:
        for backend in backends:
            backend.clean = False
            if not backend.connected:
                await backend.reconnect(mesh.backends)
        await asyncio.sleep(0.05)
