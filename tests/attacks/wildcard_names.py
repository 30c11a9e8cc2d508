"""Identities and topics with wildcards, `$` and slashes, to slip through a pattern (CVE-2017-7650, CVE-2021-34432)."""

from __future__ import annotations

from typing import ClassVar, Final, final

from mesh.wire.packets import Publish, SubAck, Subscribe, Subscription
from tests.attacks.attack import Attack, publish_all
from tests.attacks.raw import Raw

ROUNDS: Final = 200
NAMES: Final = ("#", "+", "/", "bystander/#", "+/cmd", "$SYS", "a/../bystander", "bystander\n", "")
FILTERS: Final = (
    "#", "+/+/#", "vehicles/#", "vehicles/+/cmd/#", "$share/g/vehicles/#", "$SYS/#", "vehicles/bystander/#"
)  # fmt: skip


@final
class WildcardNames(Attack):
    about: ClassVar[str] = (
        f"{ROUNDS} rounds of logins as `#`, `+`, `/`, `bystander/#` and others, and of subscriptions to the topics of"
        " all vehicles"
    )

    async def run(self) -> None:
        for _ in range(self.full(ROUNDS)):
            for name in NAMES:
                await self._login(name)
            await self._subscribe()

    async def _login(self, name: str) -> None:
        async with await Raw.dial(self.target.door) as raw:
            answer = await raw.connect("wildcard", name)
            self.note(answer)
            assert answer is None or answer.reason, f"a vehicle may be called {name!r}"

    async def _subscribe(self) -> None:
        async with await self.vehicle("wildcard") as raw:
            raw.say(Subscribe(1, [Subscription(filter, 0) for filter in FILTERS]))
            answer = await raw.find(SubAck)
            if answer is not None:
                granted = [code for code in answer.reasons if code < 0x80]
                assert not granted, "a filter beyond the vehicle's own topics is granted"
                self.count("filters refused", len(answer.reasons))
            forged = [Publish("$SYS/broker/version", b"forged", 1), Publish("vehicles/x/cmd", b"forged", 1)]
            codes = await publish_all(raw, forged)
            assert all(code >= 0x80 for code in codes), "a topic beyond the vehicle's own is granted"
            self.count("publishes refused", len(codes))
