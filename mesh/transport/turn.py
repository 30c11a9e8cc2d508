"""One turn of a node's loop: read all, handle all, then commit once and write to every peer once.

It knows when a turn ends, how long it took and which steps run then: never what they commit or write. What always
holds:

* a turn ends when every readable socket has been read (one ``call_soon``, also if it was requested several times), or
  after ``WIDTH`` steps, whichever is sooner;
* the steps run in the order in which they were added (the journal's commit comes first: persist, then acknowledge), and
  then every marked object is flushed once;
* an error in one step or flush is logged, and the others still run;
* a turn's time is the processor time of the loop's thread from the beginning of the loop's iteration, or the end of
  the turn before in the same iteration, to its end: whatever ran, garbage collection included.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, final

from mypy_extensions import i64

from mesh.broker.notices import Notices
from mesh.broker.shell import Flushable
from mesh.figures.timing import Timing
from mesh.transport.status import TurnStatus

# Steps (a read of a client, or a frame of a link) after which a turn ends although more input is ready. A thousand
# clients and their sockets do not fit into a processor's cache, so the second half of a wide turn finds out of the
# cache what the first half has used; and an answer that leaves more than 40 ms after the request costs an extra TCP
# acknowledgement. A core alone with 2,000 pairs of one message each is a third faster with 64 than without a limit; 16
# is no better.
WIDTH: Final = 64
_MANY: Final = 32  # packets of one read that count as a step more: a turn handles some 2,000 packets, about 10 ms

# Seconds of one turn that are worth a line in the log: other clients wait for its end.
_LONG: Final = 0.05

# Turns are counted from 1 ms, the exactness of the loop's clock, to 8 s (see ``Timing``).
_SHORTEST: Final = 10
_LONGEST: Final = 23

# Seconds by the wall from which the processor time is asked for. That takes a system call, up to 2 µs: a twentieth of
# a turn with one message. The time on the wall takes a tenth of that, and is not less.
_ASK: Final = 0.02
_DRIFT: Final = 1.0  # seconds of short turns after which it is asked for as well: what they waited for adds up

log = logging.getLogger(__name__)


@final
class Turn:
    """The turns of one loop, uvloop's: its clock stands still during an iteration. Must be used from that loop's thread
    only. ``clock`` is the loop's clock, but it runs; ``processor`` gives the processor time of the thread; both in
    seconds."""

    __slots__ = (
        "_asked", "_clock", "_ended", "_faults", "_handled", "_loop", "_marked", "_notices", "_processor", "_scheduled",
        "_short", "_spent", "_steps", "longest",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *steps: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = time.thread_time,
    ) -> None:
        self._loop = loop
        self._steps: list[Callable[[], object]] = list(steps)
        self._marked: list[Flushable] = []
        self._scheduled = False
        self._handled: i64 = 0
        self._clock = clock
        self._processor = processor
        self._ended = clock()
        self._asked = processor()  # the processor time when it was asked for last
        self._short = 0.0  # the time of the turns since then
        self._spent = Timing(_SHORTEST, _LONGEST)
        self._notices = Notices(log.warning, time.monotonic)
        self._faults = Notices(log.exception, time.monotonic)
        self.longest = 0.0

    def add(self, step: Callable[[], object]) -> None:
        """Call ``step`` at the end of every turn, after the steps that were added before."""
        self._steps.append(step)

    def wake(self) -> None:
        """Request the end of this turn: there is something to commit or write."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.end)

    def mark(self, flushable: Flushable) -> None:
        """Flush ``flushable`` at the end of this turn. The caller marks it once a turn."""
        self._marked.append(flushable)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.end)

    def step(self, packets: int = 0) -> None:
        """A client's read, of so many packets, or a frame of a link was handled completely. After ``WIDTH`` of these
        the turn ends at once; a read of many packets counts as several."""
        self._handled += 1
        if packets >= _MANY:
            self._handled += packets // _MANY
        if self._handled >= WIDTH:
            self._finish()

    def relayed(self, packets: int) -> None:
        """So many packets of a client were passed on, which costs little unless they are many."""
        if packets >= _MANY:
            self._handled += packets // _MANY
            if self._handled >= WIDTH:
                self._finish()

    def end(self) -> None:
        """End the turn now; a node that stops calls it once more."""
        self._scheduled = False  # first: what a step causes belongs to the next turn
        self._finish()

    def _finish(self) -> None:
        self._handled = 0
        for step in self._steps:
            try:
                step()
            except Exception:  # noqa: BLE001 - logged with its traceback, at a bounded rate
                self._faults.warn("step", "a step at the end of a turn failed: %r", step)
        marked = self._marked
        if marked:
            self._marked = []
            for flushable in marked:
                try:
                    flushable.flush()
                except Exception:  # noqa: BLE001 - logged with its traceback, at a bounded rate
                    self._faults.warn("flush", "flushing %r failed", flushable)
        self._measure()

    def _measure(self) -> None:
        now = self._clock()
        spent = now - max(self._ended, self._loop.time())
        self._ended = now
        self._short += spent
        if spent >= _ASK or self._short >= _DRIFT:
            processor = self._processor()
            before, self._short = self._short - spent, 0.0
            spent = min(spent, max(processor - self._asked - before, 0.0))
            self._asked = processor
        self._spent.record(spent)
        if spent > self.longest:
            self.longest = spent
        if spent > _LONG:
            self._notices.warn("long turn", "a turn of the loop took %.0f ms of processor time", spent * 1e3)

    def status(self) -> TurnStatus:
        """The status, for ``mesh status`` and metrics."""
        return TurnStatus(self.longest, self._spent.value())
