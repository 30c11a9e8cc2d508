"""Slots for work that may not all be done at the same time: questions to other servers, waits for keys.

What always holds: at most ``parallel`` users work at the same time, in the order in which they came; at most
``waiting`` wait; one more is refused at once, so that it tries again later instead of waiting without an end.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import final

from mesh.transport.refusal import Refused
from mesh.wire.reasons import SERVER_BUSY


@final
class Slots:
    """``async with slots:`` waits for a slot, and raises ``Refused`` with 0x89 (3 before MQTT 5.0) if too many others
    wait. ``what`` names the work in its message."""

    def __init__(self, what: str, parallel: int, waiting: int) -> None:
        self._what = what
        self._free = asyncio.Semaphore(parallel)
        self._most = waiting
        self.waiting = 0
        self.refused = 0

    async def acquire(self) -> None:
        """Wait for a slot; call ``release`` afterwards. Raises ``Refused``."""
        if self._free.locked() and self.waiting >= self._most:
            self.refused += 1
            raise Refused(SERVER_BUSY, f"{self.waiting} clients wait for {self._what} already")
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1

    def release(self) -> None:
        """Give a slot back."""
        self._free.release()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
