"""One SUBSCRIBE whose filters each match thousands of deep retained topics: the matching is the work."""

from __future__ import annotations

from typing import ClassVar, Final, final

from mesh.wire.packets import Publish, SubAck, Subscribe, Subscription
from tests.attacks.attack import Attack, publish_all, retained

TOPICS: Final = 10_000
LEVELS: Final = 125
FILTERS: Final = 60
_LITERAL: Final = LEVELS - 4  # levels that are equal in all topics


@final
class DeepWildcards(Attack):
    about: ClassVar[str] = (
        f"a vehicle retains {TOPICS:,} topics of {LEVELS} levels, and sends one SUBSCRIBE with {FILTERS} filters of `+`"
    )

    async def run(self) -> None:
        topics = [self._topic(number) for number in range(self.full(TOPICS))]
        async with await self.vehicle() as raw:
            codes = await publish_all(raw, retained(topics))
            kept = sum(code < 0x80 for code in codes)
            self.count("topics retained", kept)
            raw.say(Subscribe(1, self._filters()))
            answer = await raw.find(SubAck, 120.0)
            if answer is None:
                self.count("SUBSCRIBEs without SUBACK")
            else:
                self.count("filters granted", sum(code < 0x80 for code in answer.reasons))
            arrived = 0
            while arrived < kept and (packet := await raw.next(5.0)) is not None:
                arrived += isinstance(packet, Publish)
            self.count("retained messages that came", arrived)
        async with await self.vehicle() as raw:
            await publish_all(raw, retained(topics, b""))

    def _topic(self, number: int) -> str:
        return self.target.topic("/".join(["l"] * _LITERAL + [str(number // 100), str(number % 100)]))

    def _filters(self) -> list[Subscription]:
        """Each has one literal level, at another place, so that no two are equal."""
        found = []
        for place in range(FILTERS):
            levels = ["+"] * (_LITERAL + 2)
            levels[place] = "l"
            found.append(Subscription(self.target.topic("/".join(levels)), 0))
        return found
