"""Log lines that a stranger can provoke, bounded.

Every refused connection deserves a line, but not every second of an attack a thousand. What always holds: of one
subject at most ``burst`` lines a second are written; the line that follows says how many were left out; a line that is
left out is not formatted.
"""

from __future__ import annotations

import logging
import time
from typing import Final, final

BURST: Final = 5  # lines a second of one subject: enough to see what goes on, too few to fill a disk
SUBJECTS: Final = 64  # subjects are words of our own, so there are few


@final
class Notices:
    """Bounded warnings of one logger."""

    __slots__ = ("_burst", "_log", "_seen")

    def __init__(self, log: logging.Logger, burst: int = BURST) -> None:
        self._log = log
        self._burst = burst
        self._seen: dict[str, list[int]] = {}  # subject -> [second, lines in it, lines left out]

    def warn(self, subject: str, message: str, *args: object) -> None:
        """One line, unless ``subject`` (a constant, never a client's words) had its share of this second."""
        second = int(time.monotonic())
        seen = self._seen.get(subject)
        if seen is None:
            if len(self._seen) >= SUBJECTS:
                self._seen.clear()
            seen = self._seen[subject] = [second, 0, 0]
        if seen[0] != second:
            if seen[2]:
                self._log.warning("%s: %d more suppressed", subject, seen[2])
            seen[:] = [second, 0, 0]
        if seen[1] >= self._burst:
            seen[2] += 1
            return
        seen[1] += 1
        self._log.warning(message, *args)
