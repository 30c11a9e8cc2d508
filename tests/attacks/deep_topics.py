"""Topics and filters of as many levels as are allowed, and of more (mosquitto#1412, CVE-2021-33176)."""

from __future__ import annotations

from typing import ClassVar, Final, final

from mesh.wire.packets import Publish, SubAck, Subscribe, Subscription
from tests.attacks.attack import Attack, publish_all

TOPICS: Final = 20_000
FILTERS: Final = 1000
LEVELS: Final = 128


@final
class DeepTopics(Attack):
    about: ClassVar[str] = (
        f"{FILTERS:,} subscriptions of {LEVELS} levels with wildcards, {TOPICS:,} messages that they match, and topics"
        " of 30,000 levels"
    )

    async def run(self) -> None:
        async with await self.vehicle("deep") as raw:
            for number in range(self.full(FILTERS)):
                raw.say(Subscribe(number + 1, [Subscription(self._filter(number), 0)]))
                answer = await raw.find(SubAck)
                self.count("filters granted", 0 if answer is None else sum(code < 0x80 for code in answer.reasons))
            topic = self.target.topic("/".join(["l"] * (LEVELS - 2)))
            codes = await publish_all(raw, (Publish(topic, b"x", 1) for _ in range(self.full(TOPICS))))
            self.count("messages acknowledged", sum(code < 0x80 for code in codes))
        for _ in range(self.full(100)):
            async with await self.vehicle("deep") as raw:
                raw.say(Publish(self.target.topic("/" * 30_000), b"x"))
                assert await raw.closed(), "a topic of 30,000 levels does not end the connection"
                self.count("connections ended")

    def _filter(self, number: int) -> str:
        levels = ["+"] * (LEVELS - 2)
        for bit in range(10):
            if number >> bit & 1:
                levels[bit] = "l"
        return self.target.topic("/".join(levels))
