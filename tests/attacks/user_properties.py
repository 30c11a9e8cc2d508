"""Floods of user properties, and of trace contexts that are too large (CVE-2023-3592, GHSA-64w2-whjg-q7q7)."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Final, final

from mesh.wire.packets import Publish
from mesh.wire.properties import Properties
from tests.attacks.attack import Attack, publish_all

MESSAGES: Final = 5000
BAGGAGE: Final = 60_000


@final
class UserProperties(Attack):
    about: ClassVar[str] = (
        f"{MESSAGES:,} messages with 100 user properties, as many with `tracestate` and `baggage` of {BAGGAGE:,} bytes,"
        " and connections with 5,000 in one packet"
    )

    async def run(self) -> None:
        many, baggage = Properties(), Properties()
        many.user = [("k", "v")] * 100
        baggage.user = [
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", "v=" + "x" * BAGGAGE), ("baggage", "b" * BAGGAGE),
        ]  # fmt: skip
        topic, number = self.target.topic("report/x"), self.full(MESSAGES)
        async with await self.vehicle("properties") as raw:
            for properties, window in ((many, 100), (baggage, 10)):
                packets = (Publish(topic, b"x", 1, properties=properties) for _ in range(number))
                for code, times in Counter(await publish_all(raw, packets, window)).items():
                    self.count("acknowledged" if code < 0x80 else f"refused with 0x{code:02X}", times)
        many.user = [("k", "v")] * 5000
        for _ in range(self.full(100)):
            async with await self.vehicle("properties") as raw:
                raw.say(Publish(topic, b"x", 0, properties=many))
                assert await raw.closed(), "5,000 user properties in one packet do not end the connection"
                self.count("connections ended")
