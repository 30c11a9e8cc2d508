"""Log lines that an unknown client can cause, limited in rate.

A refused connection is logged, but an attack must not cause a thousand lines a second. What always holds: at most
``burst`` lines a second are written for one subject; the next line says how many were left out; a line that is left out
is not formatted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

BURST: Final = 5  # lines a second of one subject: enough to diagnose, too few to fill a disk
TEXT: Final = 200  # characters of a topic in a line: enough to find it; a client could write 64 KB of it each time
SUBJECTS: Final = 64  # subjects are constants of this program, so there are few


@final
class Notices:
    """Rate-limited warnings. ``write`` takes a format and its arguments, like ``warning`` of a logger; ``clock`` gives
    seconds, from any start."""

    __slots__ = ("_burst", "_clock", "_seen", "_write")

    def __init__(self, write: Callable[..., object], clock: Callable[[], float], burst: int = BURST) -> None:
        self._write = write
        self._clock = clock
        self._burst = burst
        self._seen: dict[str, list[int]] = {}  # subject -> [second, lines in it, lines left out]

    def warn(self, subject: str, message: str, *args: object) -> None:
        """Log one line, unless ``subject`` (a constant, never a client's text) has used up this second's lines."""
        second = int(self._clock())
        seen = self._seen.get(subject)
        if seen is None:
            if len(self._seen) >= SUBJECTS:
                self._seen.clear()
            seen = self._seen[subject] = [second, 0, 0]
        if seen[0] != second:
            if seen[2]:
                self._write("%s: %d more suppressed", subject, seen[2])
            seen[:] = [second, 0, 0]
        if seen[1] >= self._burst:
            seen[2] += 1
            return
        seen[1] += 1
        self._write(message, *args)


def shortened(text: str) -> str:
    """A client's text for a line, quoted."""
    return repr(text) if len(text) <= TEXT else f"{text[:TEXT]!r}… ({len(text)} characters)"
