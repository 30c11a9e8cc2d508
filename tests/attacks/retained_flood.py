"""Retained messages on ever new topics, and a subscription that asks for all of them."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Final, final

from mesh.wire.packets import PUBACK, Ack, Publish, Subscribe, Subscription
from tests.attacks.attack import Attack, publish_all, retained

TOPICS: Final = 50_000


@final
class RetainedFlood(Attack):
    about: ClassVar[str] = f"a vehicle retains {TOPICS:,} topics of eight levels, and subscribes to all of them"

    async def run(self) -> None:
        topics = [self.target.topic(f"a/b/c/d/{number // 100}/{number}") for number in range(self.full(TOPICS))]
        async with await self.vehicle("retained") as raw:
            codes = Counter(await publish_all(raw, retained(topics)))
            for code, number in codes.items():
                self.count("retained" if code < 0x80 else f"refused with 0x{code:02X}", number)
            raw.say(Subscribe(1, [Subscription(self.target.topic("#"), 1)]))
            while (packet := await raw.next(2.0)) is not None:
                if isinstance(packet, Publish):
                    self.count("retained messages that came")
                    raw.say(Ack(PUBACK, packet.packet_id) if packet.qos else b"")
        async with await self.vehicle("retained") as raw:
            await publish_all(raw, retained(topics, b""))
