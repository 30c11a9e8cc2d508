"""Subscriptions to filters of 60 KB: few by count, and much by bytes."""

from __future__ import annotations

from typing import ClassVar, Final, final

from mesh.wire.packets import SubAck, Subscribe, Subscription
from tests.attacks.attack import Attack

FILTERS: Final = 2000
BYTES: Final = 60_000


@final
class LargeFilters(Attack):
    about: ClassVar[str] = f"one session subscribes to {FILTERS:,} filters of {BYTES:,} bytes"

    async def run(self) -> None:
        async with await self.vehicle("filters", expiry=600) as raw:
            for number in range(self.full(FILTERS)):
                filter = self.target.topic(f"{number}-".ljust(BYTES, "f"))
                raw.say(Subscribe(number + 1, [Subscription(filter, 1)]))
                answer = await raw.find(SubAck)
                if answer is None:
                    self.count("closed or not answered")
                    break
                self.count("granted" if answer.reasons[0] < 0x80 else f"refused with 0x{answer.reasons[0]:02X}")
        async with await self.vehicle("filters"):
            pass  # a clean start ends the session
