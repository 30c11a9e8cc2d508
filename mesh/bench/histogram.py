"""Latencies in a table of bounded size.

It knows whole numbers; it must never know what they measure. The buckets are those of a HdrHistogram (Gil Tene): each
power of two has 64 equal buckets, so that every value is known to 1.6 %. What always holds: recording allocates no
memory, and two histograms can be added.
"""

from __future__ import annotations

from typing import Final, final

_PARTS: Final = 64
_BITS: Final = 6
_POWERS: Final = 34  # values up to 2^40, in microseconds 12 days
_BUCKETS: Final = _PARTS * (_POWERS + 1)


def _bucket(value: int) -> int:
    """The bucket of a value: the value itself below 64, then 64 buckets for each power of two."""
    shift = value.bit_length() - _BITS - 1
    if shift <= 0:
        return value if value > 0 else 0
    return min(_BUCKETS - 1, (shift << _BITS) + (value >> shift))


def _upper(bucket: int) -> int:
    """The greatest value in a bucket."""
    if bucket < 2 * _PARTS:
        return bucket
    shift = (bucket >> _BITS) - 1
    return ((bucket - (shift << _BITS)) + 1 << shift) - 1


@final
class Histogram:
    """The count of each recorded value. Values below 0 count as 0."""

    __slots__ = ("_counts", "count", "greatest")

    def __init__(self) -> None:
        self._counts: list[int] = [0] * _BUCKETS
        self.count = 0
        self.greatest = 0

    def record(self, value: int) -> None:
        """Count one value."""
        self._counts[_bucket(value)] += 1
        self.count += 1
        if value > self.greatest:
            self.greatest = value

    def quantile(self, share: float) -> int:
        """The value that ``share`` (0 to 1) of all do not exceed; 0 if there are none."""
        wanted = share * self.count
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return min(_upper(bucket), self.greatest)
        return 0

    def add(self, buckets: list[tuple[int, int]], greatest: int) -> None:
        """Add the result of ``buckets`` of another histogram."""
        for bucket, count in buckets:
            self._counts[bucket] += count
            self.count += count
        self.greatest = max(self.greatest, greatest)

    def buckets(self) -> list[tuple[int, int]]:
        """The buckets that are not empty, with their counts."""
        return [(bucket, count) for bucket, count in enumerate(self._counts) if count]

    def clear(self) -> None:
        """Remove all values."""
        for bucket, count in enumerate(self._counts):
            if count:
                self._counts[bucket] = 0
        self.count = 0
        self.greatest = 0
