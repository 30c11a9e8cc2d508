"""Retained messages on topics of 60 KB: few by count, and much by bytes."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Final, final

from tests.attacks.attack import Attack, publish_all, retained

TOPICS: Final = 2000
BYTES: Final = 60_000
_WINDOW: Final = 20


@final
class LargeTopics(Attack):
    about: ClassVar[str] = f"a vehicle retains messages on {TOPICS:,} topics of {BYTES:,} bytes"

    async def run(self) -> None:
        topics = [self.target.topic(f"{number}-".ljust(BYTES, "t")) for number in range(self.full(TOPICS))]
        async with await self.vehicle() as raw:
            for code, number in Counter(await publish_all(raw, retained(topics), _WINDOW)).items():
                self.count("retained" if code < 0x80 else f"refused with 0x{code:02X}", number)
        async with await self.vehicle() as raw:
            await publish_all(raw, retained(topics, b""), _WINDOW)
