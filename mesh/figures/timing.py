"""Durations in a table of bounded size, at a cost that a hot path can pay. Compiled.

It knows seconds: never what took them. The bounds are powers of two in microseconds, so the place of a value is its
number of bits, and a quantile is known to a factor of two. (A value that is exactly a bound counts as above it; no
clock is that exact.) What always holds: recording takes no memory and no lock; it belongs to one thread.
"""

from __future__ import annotations

from typing import Final, final

from mesh.figures.instrument import Distribution

_MICROSECONDS: Final = 1e6


@final
class Timing:
    """Bounds from 2^``first`` to 2^``last`` microseconds: 6 is 64 µs, 20 is a second, 26 is a minute."""

    __slots__ = ("_counts", "_first", "_last", "_total")

    def __init__(self, first: int, last: int) -> None:
        self._first = first
        self._last = last
        self._counts: list[int] = [0] * (last - first + 2)  # the last one is of what is beyond all bounds
        self._total = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration. A clock that was set back makes it negative: then it counts as 0."""
        if seconds < 0.0:
            seconds = 0.0
        self._total += seconds
        bits = int(seconds * _MICROSECONDS).bit_length()
        self._counts[min(max(bits, self._first), self._last + 1) - self._first] += 1

    def value(self) -> Distribution:
        """What was counted until now."""
        bounds = [2.0**power / _MICROSECONDS for power in range(self._first, self._last + 1)]
        return Distribution(tuple(bounds), tuple(self._counts), self._total)
