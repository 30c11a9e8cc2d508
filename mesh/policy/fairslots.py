"""Slots for work that is done for many sources, each of which gets its turn: hashes of passwords.

What always holds: at most ``parallel`` users work at the same time; of those who wait, trusted ones begin first, and
then one of each source in turn, so that a source with many delays another one by as much as one with few.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import final

Waiter = asyncio.Future[None]


@final
class FairSlots:
    """A source is any text."""

    __slots__ = ("_free", "_others", "_trusted")

    def __init__(self, parallel: int) -> None:
        self._free = parallel
        self._trusted = _Line()
        self._others = _Line()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._trusted.waiting + self._others.waiting

    def ahead(self, source: str, trusted: bool) -> int:
        """The most of those who wait that begin before one more does."""
        if trusted:
            return self._trusted.ahead(source)
        return self._trusted.waiting + self._others.ahead(source)

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
        waiter = self._trusted.take() or self._others.take()
        if waiter is None:
            self._free += 1
        else:
            waiter.set_result(None)


@final
class _Line:
    """Those who wait, by source: the source whose turn is next is the first one."""

    __slots__ = ("_sources", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self._sources: OrderedDict[str, OrderedDict[Waiter, None]] = OrderedDict()

    def ahead(self, source: str) -> int:
        own = len(self._sources.get(source, ()))
        others = len(self._sources) - (1 if own else 0)
        return min(self.waiting, own + (own + 1) * others)

    def add(self, source: str, waiter: Waiter) -> None:
        self._sources.setdefault(source, OrderedDict())[waiter] = None
        self.waiting += 1

    def remove(self, source: str, waiter: Waiter) -> None:
        """It waits no longer, if it still does."""
        waiters = self._sources.get(source)
        if waiters is not None and waiter in waiters:
            del waiters[waiter]
            self.waiting -= 1
            if not waiters:
                del self._sources[source]

    def take(self) -> Waiter | None:
        """Who begins now; ``None`` if none waits."""
        while self._sources:
            source, waiters = next(iter(self._sources.items()))
            waiter, _ = waiters.popitem(last=False)
            self.waiting -= 1
            if waiters:
                self._sources.move_to_end(source)
            else:
                del self._sources[source]
            if not waiter.done():  # done: its task was cancelled
                return waiter
        return None
