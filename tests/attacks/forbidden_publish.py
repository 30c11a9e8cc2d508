"""A vehicle that publishes to the topic of another one, and again, and again on each new connection."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final, final

from mesh.wire.packets import MQTT311, Publish
from tests.attacks.attack import Attack, publish_all

MESSAGES: Final = 20_000
_CONNECTIONS: Final = 100


@final
class ForbiddenPublish(Attack):
    about: ClassVar[str] = f"a 3.1.1 vehicle publishes {MESSAGES:,} messages to the topic of another vehicle"

    async def run(self) -> None:
        left = self.full(MESSAGES)
        for _ in range(_CONNECTIONS):
            async with await self.vehicle("forbidden", MQTT311) as raw:
                codes = await publish_all(raw, (Publish("vehicles/victim/cmd", b"forged", 1) for _ in range(left)))
            self.count("acknowledged and dropped", len(codes))
            left -= len(codes)
            if not left:
                return
            self.count("closed")
            await asyncio.sleep(0.1)
