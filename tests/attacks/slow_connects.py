"""CONNECTs that trickle, and connections with huge keep alives that say nothing more (SlowITe, CVE-2020-13849)."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final, final

from mesh.wire.encode import encode
from mesh.wire.packets import MQTT311
from tests.attacks.attack import Attack
from tests.attacks.raw import Raw, hello

CONNECTIONS: Final = 2000
SECONDS: Final = 15
_PERIOD: Final = 0.5


@final
class SlowConnects(Attack):
    about: ClassVar[str] = (
        f"{CONNECTIONS:,} connections: half send CONNECT at one byte each {_PERIOD:g} s, half have a keep alive of"
        f" 65,535 s and are silent; for {SECONDS} s"
    )

    async def run(self) -> None:
        data = encode(hello("slow" * 20, self.target.vehicle, MQTT311), MQTT311)

        async def join(index: int) -> Raw:
            raw = await Raw.dial(self.target.door, MQTT311)
            if index % 2:
                await raw.connect(f"idle-{index}", self.target.vehicle, keep_alive=65_535)
            return raw

        async with self.crowd(self.full(CONNECTIONS), join) as crowd:
            for at in range(int(self.full(SECONDS) / _PERIOD)):
                for index, raw in enumerate(crowd):
                    if index % 2 == 0:
                        raw.say(data[at : at + 1])
                await asyncio.sleep(_PERIOD)
            await self.count_closed(crowd, 0.5)
