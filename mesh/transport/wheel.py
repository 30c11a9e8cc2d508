"""A coarse timer wheel: one timer for all deadlines of a node's connections.

It knows that an entry wants to be looked at after some ticks: never why. What always holds:

* an entry stands in one slot at most, and ``forget`` takes it out at once, so a closed connection is not kept in memory
  by a long keep alive;
* an entry is looked at late by up to two ticks, never early;
* time is counted in ticks that ran, so a loop that stood still expires nobody who could not be heard meanwhile.

A packet that arrives costs one assignment (``heard``); the entry works out what is left only when its slot comes up.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Final, final

from mypy_extensions import mypyc_attr

from mesh.broker.shell import Flushable

log = logging.getLogger(__name__)

TICK: Final = 0.5  # seconds; fine enough for 1.5 times a keep alive of 1 s
SLOTS: Final = 512  # a keep alive beyond 256 s is looked at again every 256 s, which costs nothing


@mypyc_attr(allow_interpreted_subclasses=True)
class Timed(Flushable):
    """An entry: it must have been heard (``heard``, in ticks) within ``patience`` ticks, or else ``expired`` is called
    once. Most entries have something to flush as well, and a compiled class has one base."""

    __slots__ = ("heard", "patience", "place")

    def __init__(self) -> None:
        self.heard = 0
        self.patience = 0  # 0: none
        self.place = -1  # slot of the wheel; -1: in none

    def expired(self) -> None:
        """Nothing was heard for ``patience`` ticks. Whoever wants to be looked at again calls ``Wheel.watch``."""
        raise NotImplementedError


@final
class Wheel:
    """``now`` is the number of ticks so far."""

    __slots__ = ("_handle", "_loop", "_slots", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: list[set[Timed]] = [set() for _ in range(SLOTS)]
        self._handle: asyncio.TimerHandle | None = None
        self.now = 0

    def start(self) -> None:
        """Begin to tick."""
        if self._handle is None:
            self._handle = self._loop.call_later(TICK, self._run)

    def stop(self) -> None:
        """Tick no more; the entries stay."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def watch(self, entry: Timed, seconds: float) -> None:
        """From now on ``entry`` must be heard every ``seconds``; 0 means that it need not."""
        entry.heard = self.now
        entry.patience = math.ceil(seconds / TICK) + 1 if seconds > 0 else 0
        self.forget(entry)
        if entry.patience:
            self._put(entry, entry.patience)

    def forget(self, entry: Timed) -> None:
        """Do not look at ``entry`` any more."""
        if entry.place >= 0:
            self._slots[entry.place].discard(entry)
            entry.place = -1

    def tick(self) -> None:
        """Let one tick pass."""
        self.now += 1
        place = self.now % SLOTS
        due = self._slots[place]
        if not due:
            return
        self._slots[place] = set()
        for entry in due:
            entry.place = -1
        for entry in due:
            left = entry.heard + entry.patience - self.now
            if entry.patience == 0 or entry.place >= 0:
                continue  # another entry's expiry has changed this one's deadline
            if left > 0:
                self._put(entry, left)
                continue
            try:
                entry.expired()
            except Exception:
                log.exception("the deadline of %r failed", entry)

    def _put(self, entry: Timed, ticks: int) -> None:
        entry.place = (self.now + min(ticks, SLOTS - 1)) % SLOTS
        self._slots[entry.place].add(entry)

    def _run(self) -> None:
        self._handle = self._loop.call_later(TICK, self._run)
        self.tick()
