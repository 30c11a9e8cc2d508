"""A vehicle that takes its commands, acknowledges none, and connects again for the repeats."""

from __future__ import annotations

from typing import ClassVar, Final, final

from mesh.wire.packets import Publish, SubAck, Subscribe, Subscription
from tests.attacks.attack import Attack, publish_all

MESSAGES: Final = 1000
CONNECTIONS: Final = 200


@final
class WithheldPubacks(Attack):
    about: ClassVar[str] = (
        f"a vehicle gets {MESSAGES:,} commands and acknowledges none; it connects {CONNECTIONS} times for the repeats"
    )

    async def run(self) -> None:
        topic = self.target.topic("cmd/withheld")
        async with await self.vehicle("withheld", expiry=600) as raw, await self.backend("withheld") as sender:
            raw.say(Subscribe(1, [Subscription(topic, 1)]))
            await raw.find(SubAck)
            codes = await publish_all(sender, (Publish(topic, b"x" * 200, 1) for _ in range(self.full(MESSAGES))))
            self.count("commands acknowledged", sum(code < 0x80 for code in codes))
        for _ in range(self.full(CONNECTIONS)):
            async with await self.vehicle("withheld", clean=False, expiry=600) as raw:
                while isinstance(await raw.next(0.2), Publish):
                    self.count("deliveries")
        async with await self.vehicle("withheld"):
            pass  # a clean start ends the session
