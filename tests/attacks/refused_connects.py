"""CONNECTs that are refused, in a loop, from sockets that the client leaves open (CVE-2025-56352)."""

from __future__ import annotations

from typing import ClassVar, Final, final

from tests.attacks.attack import Attack
from tests.attacks.raw import Raw

CONNECTIONS: Final = 10_000


@final
class RefusedConnects(Attack):
    about: ClassVar[str] = f"{CONNECTIONS:,} logins with an identity that is refused; the client closes no socket"

    async def run(self) -> None:
        async def join(index: int) -> Raw:
            raw = await Raw.dial(self.target.door)
            self.note(await raw.connect(f"refused-{index}", "not a vehicle!"))
            return raw

        async with self.crowd(self.full(CONNECTIONS), join) as crowd:
            await self.count_closed(crowd, 10.0)
            assert self.seen["closed by the mesh"] == len(crowd), "a refused connection stays open"
