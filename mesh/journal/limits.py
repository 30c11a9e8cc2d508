"""The bounds of one journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

# A place in a segment has a 32 bit offset. A new segment begins before this one exceeds its size, but a hand-over is
# never split, so a segment may be one backlog longer: both together must stay below 4 GiB.
_ADDRESSABLE: Final = 1 << 32
_SMALLEST_SEGMENT: Final = 128


@final
@dataclass(frozen=True, slots=True)
class JournalLimits:
    """Sizes in bytes, times in seconds.

    ``ValueError`` names the field that is out of range.
    """

    # Large enough that a new segment (two syncs) is rare, small enough that one is soon cleaned and its file reused.
    segment: int = 16 << 20
    # Hand-overs are joined up to this size: one sync for all that wait, without an unbounded copy after the disk was
    # unavailable.
    batch: int = 16 << 20
    # Bytes that one step of cleaning hands to the owner's thread: about a millisecond of its time.
    step: int = 256 << 10
    # Up to this many live items in the journal, the owner searches them for those of the cleaned segment, which takes
    # half a millisecond of its time. With more items, or with 0, the whole segment is read.
    picked: int = 10_000
    # Bytes that may wait in memory for a slow or full disk. Beyond it `append` raises `BacklogError`.
    backlog: int = 256 << 20
    # A full disk is retried after the first wait, doubling up to the longest: soon after there is space, without a
    # busy loop.
    retry_first: float = 0.05
    retry_longest: float = 5.0
    # How long `close` waits for the last sync. A disk that hangs must not hang the process with it.
    close: float = 10.0
    # Files kept open for reading; the least recently used is closed first. A process may have fewer file handles than
    # its journal has segments.
    readers: int = 64

    def __post_init__(self) -> None:
        for name in ("segment", "batch", "step", "backlog", "retry_first", "retry_longest", "close", "readers"):
            if getattr(self, name) <= 0:
                raise ValueError(f"limit {name} is {getattr(self, name)}; it must be above 0")
        if self.segment < _SMALLEST_SEGMENT:
            raise ValueError(f"limit segment is {self.segment} bytes; it must be {_SMALLEST_SEGMENT} or more")
        if self.segment + self.batch + 2 * self.backlog >= _ADDRESSABLE:
            raise ValueError("limits segment + batch + 2 x backlog must stay below 4 GiB: a place has 32 bits")
