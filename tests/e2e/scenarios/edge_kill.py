"""An edge is killed with kill -9 while vehicles are connected and both flows run."""

from __future__ import annotations

import asyncio
import random

from tests.e2e.fleet import Fleet
from tests.support.mesh import Mesh, edges, kill_and_wait


async def traffic_survives_killed_edges(mesh: Mesh, vehicles: int, kills: int) -> None:
    """Kill one edge after the other, then all at once, at random moments."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    fleet = Fleet(mesh, "killed", vehicles)
    await fleet.connect()
    try:
        assert set(fleet.edge_of.values()) == set(edges(mesh)), "every edge must serve some vehicles"
        async with fleet.traffic():
            await fleet.rounds(2)
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(0.0, 1.0))
                await kill_and_wait(mesh, chance.choice(edges(mesh)))
            await asyncio.sleep(chance.uniform(0.0, 1.0))
            await kill_and_wait(mesh, *edges(mesh))
            await fleet.rounds(2)
    finally:
        await fleet.leave()
