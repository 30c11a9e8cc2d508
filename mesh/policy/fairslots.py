"""Slots for work that is done for many sources, each of which gets its turn: hashes of passwords.

What always holds: at most ``parallel`` users work at the same time; of those who wait, trusted ones begin first, and
then one of each source in turn, so that a source with many delays another one by as much as one with few.
"""

from __future__ import annotations

import asyncio
from typing import final

from mesh.transport.rounds import Rounds

Waiter = asyncio.Future[None]


@final
class FairSlots:
    """A source is any text."""

    __slots__ = ("_free", "_others", "_trusted")

    def __init__(self, parallel: int) -> None:
        self._free = parallel
        self._trusted: Rounds[Waiter] = Rounds()
        self._others: Rounds[Waiter] = Rounds()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._trusted) + len(self._others)

    def ahead(self, source: str, trusted: bool) -> int:
        """The most of those who wait that begin before one more does."""
        if trusted:
            return _ahead(self._trusted, source)
        return len(self._trusted) + _ahead(self._others, source)

    async def acquire(self, source: str, trusted: bool) -> None:
        """Wait for a slot; call ``release`` afterwards."""
        if self._free > 0:  # then none waits
            self._free -= 1
            return
        line = self._trusted if trusted else self._others
        waiter: Waiter = asyncio.get_running_loop().create_future()
        line.add(source, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            line.remove(source, waiter)
            if not waiter.cancelled():  # it has got a slot meanwhile
                self.release()
            raise

    def release(self) -> None:
        """Give a slot back."""
        waiter = _next(self._trusted) or _next(self._others)
        if waiter is None:
            self._free += 1
        else:
            waiter.set_result(None)


def _ahead(line: Rounds[Waiter], source: str) -> int:
    """The most of a line that leave it before one more of this source."""
    own = line.of(source)
    others = line.keys - (1 if own else 0)
    return min(len(line), own + (own + 1) * others)


def _next(line: Rounds[Waiter]) -> Waiter | None:
    """Who begins now; ``None`` if none waits."""
    while line:
        waiter = line.take()
        if not waiter.done():  # done: its task was cancelled
            return waiter
    return None
