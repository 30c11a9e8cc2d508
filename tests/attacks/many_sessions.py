"""Durable sessions without end: each client id of one vehicle makes another one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import ClassVar, Final, final

from mesh.wire.packets import Connack, Disconnect
from tests.attacks.attack import Attack
from tests.attacks.raw import PATIENCE, Raw, hello

SESSIONS: Final = 20_000
_EXPIRY: Final = 600
_LANES: Final = 50


@final
class ManySessions(Attack):
    about: ClassVar[str] = f"one vehicle makes {SESSIONS:,} durable sessions, one client id each"

    async def run(self) -> None:
        made: list[int] = []
        await self._each(range(self.full(SESSIONS)), _EXPIRY, made)
        self.count("sessions", len(made))
        await self._each(made, 0, [])  # a clean start ends the session, so that the next attack finds room

    async def _each(self, numbers: Iterable[int], expiry: int, made: list[int]) -> None:
        """Connect as each client; ``made`` gets those that were accepted."""
        left = iter(numbers)

        async def lane() -> None:
            for number in left:
                if await self._accepted(number, expiry):
                    made.append(number)

        await asyncio.gather(*(lane() for _ in range(_LANES)))

    async def _accepted(self, number: int, expiry: int) -> bool:
        try:
            async with await Raw.dial(self.target.door) as raw:
                raw.say(hello(f"many-{number}", self.target.vehicle, expiry=expiry))
                answer = await raw.find(Connack)
                self.note(answer)
                if answer is None or answer.reason:
                    return False
                raw.say(Disconnect())
                await raw.closed(PATIENCE)
                return True
        except (OSError, TimeoutError):
            self.count("connections not made")
            return False
