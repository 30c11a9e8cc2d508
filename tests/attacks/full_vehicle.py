"""A vehicle whose queue is full, and back ends of both protocols that go on publishing to it."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final, final

from mesh.wire.packets import MQTT5, MQTT311, Publish, SubAck, Subscribe, Subscription
from tests.attacks.attack import Attack, publish_all

MESSAGES: Final = 5000
_AGAIN: Final = 20  # connections of one publisher at most


@final
class FullVehicle(Attack):
    about: ClassVar[str] = (
        f"a vehicle reads nothing; a 3.1.1 and a 5.0 back end publish {MESSAGES:,} commands each to it, and repeat what"
        " was not acknowledged on new connections"
    )

    async def run(self) -> None:
        topic = self.target.topic("cmd/full")
        async with await self.vehicle("full", clean=True, expiry=600) as raw:
            raw.say(Subscribe(1, [Subscription(topic, 1)]))
            await raw.find(SubAck)
            await asyncio.gather(self._publisher(topic, MQTT311), self._publisher(topic, MQTT5))
        async with await self.vehicle("full"):
            pass  # a clean start ends the session

    async def _publisher(self, topic: str, protocol: int) -> None:
        left = self.full(MESSAGES)
        for attempt in range(_AGAIN):
            async with await self.backend(f"full-{protocol}", protocol) as raw:
                codes = await publish_all(raw, (Publish(topic, b"x" * 100, 1) for _ in range(left)))
            version = "3.1.1" if protocol == MQTT311 else "5.0"
            self.count(f"acknowledged to {version}", sum(code < 0x80 for code in codes))
            self.count(f"refused to {version}", sum(code >= 0x80 for code in codes))
            left -= len(codes)
            if not left:
                return
            self.count(f"connections of {version} closed or not answered")
            await asyncio.sleep(0.1 * attempt)
