"""Connections up to the limit of the front door, half of them silent, and more attempts beyond it."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final, final

from tests.attacks.attack import Attack
from tests.attacks.raw import Raw

CONNECTIONS: Final = 20_000
_HELD: Final = 10.0  # seconds


@final
class ConnectFlood(Attack):
    about: ClassVar[str] = (
        f"{CONNECTIONS:,} connections, or as many as this process may open: half are silent, half vehicles; held for"
        f" {_HELD:g} s"
    )

    async def run(self) -> None:
        async def join(index: int) -> Raw:
            if index % 2:
                return await Raw.dial(self.target.door)
            return await self.vehicle(f"flood-{index % 10}-{index}")

        async with self.crowd(self.full(CONNECTIONS), join) as crowd:
            await asyncio.sleep(_HELD * self.size)
            await self.count_closed(crowd, 0.5)
