"""One turn of a node's loop: read all, handle all, then commit once and write every peer once.

It knows when a turn ends and what is to be done then: never what is committed or written. What always holds:

* a turn ends after every socket that was readable has been read: the end is one ``call_soon``, however often it was
  asked for;
* the steps run in the order in which they were added (the journal's commit comes first: persist, then acknowledge), and
  then every object that was marked is flushed once;
* what fails in one step or one flush is logged and does not keep the others from running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import final

from mypy_extensions import mypyc_attr

log = logging.getLogger(__name__)


@mypyc_attr(allow_interpreted_subclasses=True)
class Flushable:
    """Something that gathers output during a turn and writes it at the end: whoever owns the way to one client, or a
    link. A base class for the reason that ``session/store.py`` gives."""

    __slots__ = ()

    def flush(self) -> None:
        """Write what was gathered."""
        raise NotImplementedError


@final
class Turn:
    """The turns of one loop. Must be used from that loop's thread only."""

    __slots__ = ("_loop", "_marked", "_scheduled", "_steps")

    def __init__(self, loop: asyncio.AbstractEventLoop, *steps: Callable[[], object]) -> None:
        self._loop = loop
        self._steps: list[Callable[[], object]] = list(steps)
        self._marked: list[Flushable] = []
        self._scheduled = False

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

    def end(self) -> None:
        """End the turn now; a node that stops calls it once more by itself."""
        self._scheduled = False  # first: what a step causes to happen belongs to the next turn
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
