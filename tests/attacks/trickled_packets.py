"""Packets that come byte by byte: each byte wakes the mesh, and none completes anything."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final, final

from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, Publish
from tests.attacks.attack import Attack
from tests.attacks.raw import Raw

CONNECTIONS: Final = 500
SECONDS: Final = 20
_PERIOD: Final = 0.1


@final
class TrickledPackets(Attack):
    about: ClassVar[str] = (
        f"{CONNECTIONS} vehicles without keep alive send one byte of a packet each {_PERIOD:g} s, for {SECONDS} s"
    )

    async def run(self) -> None:
        data = encode(Publish(self.target.topic("slow"), bytes(100_000)), MQTT5)

        async def join(index: int) -> Raw:
            return await self.vehicle(f"trickle-{index}")

        async with self.crowd(self.full(CONNECTIONS), join) as crowd:
            for at in range(int(self.full(SECONDS) / _PERIOD)):
                for raw in crowd:
                    raw.say(data[at : at + 1])
                await asyncio.sleep(_PERIOD)
            await self.count_closed(crowd, 1.0)
