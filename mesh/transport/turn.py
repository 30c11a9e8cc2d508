"""One turn of a node's loop: read all, handle all, then commit once and write every peer once.

It knows when a turn ends and what is to be done then: never what is committed or written. What always holds:

* a turn ends after every socket that was readable has been read, the end being one ``call_soon`` however often it was
  asked for; or after ``WIDTH`` steps, whichever is sooner;
* the steps run in the order in which they were added (the journal's commit comes first: persist, then acknowledge), and
  then every object that was marked is flushed once;
* what fails in one step or one flush is logged and does not keep the others from running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, final

from mesh.broker.shell import Flushable

# Steps (a read of a client, or a packet of a link) after which a turn ends although more is there. A thousand clients
# and their sockets do not fit into a processor's cache, so a wide turn finds cold again in its second half what it has
# touched in its first; and an answer that leaves more than 40 ms after the question costs a TCP acknowledgement of its
# own. A core alone with 2,000 pairs of one message each is a third faster with 64 than without a limit; 16 is no
# better.
WIDTH: Final = 64

log = logging.getLogger(__name__)


@final
class Turn:
    """The turns of one loop. Must be used from that loop's thread only."""

    __slots__ = ("_handled", "_loop", "_marked", "_scheduled", "_steps")

    def __init__(self, loop: asyncio.AbstractEventLoop, *steps: Callable[[], object]) -> None:
        self._loop = loop
        self._steps: list[Callable[[], object]] = list(steps)
        self._marked: list[Flushable] = []
        self._scheduled = False
        self._handled = 0

    def add(self, step: Callable[[], object]) -> None:
        """Call ``step`` at the end of every turn, after the steps that are there already."""
        self._steps.append(step)

    def wake(self) -> None:
        """Something happened: this turn must end."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.end)

    def mark(self, flushable: Flushable) -> None:
        """Flush ``flushable`` at the end of this turn. The caller marks it once a turn."""
        self._marked.append(flushable)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.end)

    def step(self) -> None:
        """A client's read, or a packet of a link, was handled and nothing is half done: after ``WIDTH`` of these the
        turn ends here and now."""
        self._handled += 1
        if self._handled >= WIDTH:
            self._finish()

    def end(self) -> None:
        """End the turn now; a node that stops calls it once more by itself."""
        self._scheduled = False  # first: what a step causes to happen belongs to the next turn
        self._finish()

    def _finish(self) -> None:
        self._handled = 0
        for step in self._steps:
            try:
                step()
            except Exception:
                log.exception("a step at the end of a turn failed: %r", step)
        marked = self._marked
        if marked:
            self._marked = []
            for flushable in marked:
                try:
                    flushable.flush()
                except Exception:
                    log.exception("flushing %r failed", flushable)
