"""Errors of this program in the work that a node repeats in each turn.

It knows how often that work failed in a row, and since when: never what the work is. What always holds:

* the work is tried again, after a pause that doubles from ``FIRST`` to ``LONGEST`` seconds: a fault that stays must not
  use up a processor;
* at most one traceback a second is logged;
* after ``GIVE_UP`` seconds without one success the process ends: what is wrong in its memory is not in the journal.
  Other work goes on until then, and a fault that the journal brings back costs no more than one start in that time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, final

from mesh.broker.notices import Notices

FIRST: Final = 0.01
LONGEST: Final = 1.0
GIVE_UP: Final = 60.0

log = logging.getLogger(__name__)


@final
class Faults:
    """``total``: failures since the start; ``on_end`` ends the process; ``clock`` gives seconds, from any start."""

    def __init__(self, on_end: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        self.on_end = on_end
        self._clock = clock
        self._notices = Notices(log.exception, clock, burst=1)
        self._since = 0.0
        self._pause = 0.0  # 0.0: the last try has succeeded
        self._text = ""

    def failed(self, error: Exception) -> float:
        """The work has failed with ``error``, which is handled at present. Returns the seconds until the next try."""
        now = self._clock()
        self.total += 1
        if not self._pause:
            self._since = now
        self._pause = min(max(FIRST, 2 * self._pause), LONGEST)
        self._text = f"{type(error).__name__}: {error}"
        self._notices.warn("fault", "a part of the broker's work failed; it is tried again, and the rest goes on")
        if now - self._since >= GIVE_UP:
            log.critical(
                "a part of the broker's work has failed in each turn for %.0f s; this process ends, and starts again"
                " from its journal: %s", now - self._since, self._text,
            )  # fmt: skip
            self.on_end()
        return self._pause

    def succeeded(self) -> None:
        """The work was done."""
        if self._pause:
            self._pause = 0.0
            log.warning("the broker's work that failed for %.1f s succeeds again", self._clock() - self._since)

    @property
    def detail(self) -> str:
        """What is wrong, in one sentence; empty if nothing is."""
        return f"a part of the broker's work fails in each turn: {self._text}" if self._pause else ""
