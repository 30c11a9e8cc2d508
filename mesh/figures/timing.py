"""A histogram of durations of bounded size, cheap enough for a hot path. Compiled.

It knows seconds; it must never know what took them. The bounds are powers of two in microseconds, so the bucket of a
value is its number of bits, and a quantile is exact to a factor of two. (A value equal to a bound counts as above it;
no clock is that exact.) What always holds: ``record`` allocates no memory and takes no lock; one thread uses it.
"""

from __future__ import annotations

from typing import Final, final

from mesh.figures.instrument import Distribution

_MICROSECONDS: Final = 1e6


@final
class Timing:
    """Bounds from 2^``first`` to 2^``last`` microseconds: 6 is 64 µs, 20 is a second, 26 is a minute."""

    __slots__ = ("_counts", "_first", "_last", "_least", "_total")

    def __init__(self, first: int, last: int) -> None:
        self._first = first
        self._last = last
        self._least = 2.0**first  # microseconds
        self._counts: list[int] = [0] * (last - first + 2)  # the last one counts values above all bounds
        self._total = 0.0

    def record(self, seconds: float) -> None:
        """Count one duration. A negative one, after the clock was set back, counts as 0."""
        if seconds < 0.0:
            seconds = 0.0
        self._total += seconds
        micros = seconds * _MICROSECONDS
        if micros < self._least:  # most are, and the rest takes longer
            self._counts[0] += 1
            return
        bits = int(micros).bit_length()
        self._counts[min(max(bits, self._first), self._last + 1) - self._first] += 1

    def value(self) -> Distribution:
        """The distribution of the durations so far."""
        bounds = [2.0**power / _MICROSECONDS for power in range(self._first, self._last + 1)]
        return Distribution(tuple(bounds), tuple(self._counts), self._total)
