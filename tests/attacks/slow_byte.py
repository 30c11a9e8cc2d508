"""One byte every 1.5 s keeps no keep alive: a client that never finishes a packet is as silent as one that is gone."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final, final

from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, Publish
from tests.attacks.attack import Attack
from tests.attacks.raw import Raw

CONNECTIONS: Final = 200
SECONDS: Final = 30
_PERIOD: Final = 1.5
_KEEP_ALIVE: Final = 2


@final
class SlowByte(Attack):
    about: ClassVar[str] = (
        f"{CONNECTIONS} vehicles with a keep alive of {_KEEP_ALIVE} s send one byte of a packet each {_PERIOD:g} s, for"
        f" {SECONDS} s"
    )

    async def run(self) -> None:
        data = encode(Publish(self.target.topic("slow"), bytes(1000)), MQTT5)

        async def join(index: int) -> Raw:
            return await self.vehicle(f"byte-{index}", keep_alive=_KEEP_ALIVE)

        async with self.crowd(self.full(CONNECTIONS), join) as crowd:
            for at in range(max(6, round(self.full(SECONDS) / _PERIOD))):
                for raw in crowd:
                    raw.say(data[at : at + 1])
                await asyncio.sleep(_PERIOD)
            await self.count_closed(crowd, 1.0)
