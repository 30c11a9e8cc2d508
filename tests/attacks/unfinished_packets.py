"""Packets of almost 1 MB whose last byte never comes: what is under way lies in the memory of the front door."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final, final

from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, Publish
from tests.attacks.attack import Attack
from tests.attacks.raw import Raw

CONNECTIONS: Final = 1500
BYTES: Final = 1_000_000
_HELD: Final = 10.0  # seconds


@final
class UnfinishedPackets(Attack):
    about: ClassVar[str] = f"{CONNECTIONS:,} vehicles each send {BYTES:,} bytes of a packet, and not its last one"

    async def run(self) -> None:
        data = encode(Publish(self.target.topic("large"), bytes(BYTES)), MQTT5)[:-1]

        async def join(index: int) -> Raw:
            raw = await self.vehicle(f"unfinished-{index}")
            raw.say(data)
            await raw.flush()
            return raw

        async with self.crowd(self.full(CONNECTIONS), join) as crowd:
            await asyncio.sleep(_HELD * self.size)
            await self.count_closed(crowd, 0.5)
