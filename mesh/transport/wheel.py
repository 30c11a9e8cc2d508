"""A coarse timer wheel: one timer for all deadlines of a node's connections.

It knows after how many ticks an entry is to be checked: never why. What always holds:

* an entry is in one slot at most, and ``forget`` removes it at once, so a long keep alive does not keep a closed
  connection in memory;
* an entry is checked up to two ticks late, never early;
* time is counted in ticks that ran, so a loop that stood still does not expire connections that it could not read.

A packet that arrives costs one assignment (``heard``); the time left is computed only when the entry's slot is due.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import Final, final

from mypy_extensions import mypyc_attr

from mesh.broker.shell import Flushable

log = logging.getLogger(__name__)

TICK: Final = 0.5  # seconds; fine enough for 1.5 times a keep alive of 1 s
SLOTS: Final = 512  # an entry with a longer deadline than 256 s is checked every 256 s, which costs next to nothing
PORTION: Final = 256  # entries that are checked in one turn: after a network fault all its clients are silent at once


@mypyc_attr(allow_interpreted_subclasses=True)
class Timed(Flushable):
    """An entry. Its owner sets ``heard`` to the present tick on each sign of life; without one for ``patience`` ticks
    ``expired`` is called once. It derives from ``Flushable`` because most entries are flushed as well, and a compiled
    class has one base."""

    __slots__ = ("heard", "patience", "slot")

    def __init__(self) -> None:
        self.heard = 0
        self.patience = 0  # 0: none
        self.slot = -1  # slot of the wheel; -1: none

    def expired(self) -> None:
        """Nothing was heard for ``patience`` ticks. An entry that is to be checked again calls ``Wheel.watch``."""
        raise NotImplementedError


@final
class Wheel:
    """``now`` is the number of ticks so far."""

    __slots__ = ("_due", "_handle", "_loop", "_slots", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: deque[Timed] = deque()  # entries of past ticks that are still to be checked
        self._slots: list[set[Timed]] = [set() for _ in range(SLOTS)]
        self._handle: asyncio.TimerHandle | None = None
        self.now = 0

    def start(self) -> None:
        """Start the timer; a second call does nothing."""
        if self._handle is None:
            self._handle = self._loop.call_later(TICK, self._run)

    def stop(self) -> None:
        """Stop the timer; the entries stay."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def watch(self, entry: Timed, seconds: float) -> None:
        """From now on ``entry`` must be heard every ``seconds``; 0 ends that."""
        self.forget(entry)
        entry.heard = self.now
        entry.patience = math.ceil(seconds / TICK) + 1 if seconds > 0 else 0
        if entry.patience:
            self._put(entry, entry.patience)

    def forget(self, entry: Timed) -> None:
        """Remove ``entry``."""
        entry.patience = 0
        if entry.slot >= 0:
            self._slots[entry.slot].discard(entry)
            entry.slot = -1

    def tick(self) -> None:
        """Let one tick pass, and check the first ``PORTION`` of the entries that are due."""
        self.now += 1
        slot = self.now % SLOTS
        due = self._slots[slot]
        if due:
            self._slots[slot] = set()
            for entry in due:
                entry.slot = -1
            self._due.extend(due)
        self.check()

    def check(self) -> bool:
        """Check some of the entries that are due. Returns whether others are left."""
        due = self._due
        for _ in range(min(len(due), PORTION)):
            entry = due.popleft()
            left = entry.heard + entry.patience - self.now
            if entry.patience == 0 or entry.slot >= 0:
                continue  # the expiry of another entry has changed this deadline
            if left > 0:
                self._put(entry, left)
                continue
            try:
                entry.expired()
            except Exception:
                log.exception("the deadline of %r failed", entry)
        return bool(due)

    def _put(self, entry: Timed, ticks: int) -> None:
        entry.slot = (self.now + min(ticks, SLOTS - 1)) % SLOTS
        self._slots[entry.slot].add(entry)

    def _run(self) -> None:
        self._handle = self._loop.call_later(TICK, self._run)
        self.tick()
        if self._due:
            self._loop.call_soon(self._check)

    def _check(self) -> None:
        if self.check():
            self._loop.call_soon(self._check)
