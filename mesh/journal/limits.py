"""The bounds of one journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

# A place in a segment is a 32 bit offset. A segment is rolled before it passes its size, but one hand-over is never
# split, so a segment may end one backlog beyond it: both together must stay below 4 GiB.
_ADDRESSABLE: Final = 1 << 32
_SMALLEST_SEGMENT: Final = 128


@final
@dataclass(frozen=True, slots=True)
class JournalLimits:
    """Sizes in bytes, times in seconds.

    ``ValueError`` names the field that is out of range.
    """

    # Big enough that rolling (two syncs) is rare, small enough that one is soon cleaned and its file written to again.
    segment: int = 16 << 20
    # Hand-overs are joined up to this size: one sync for all that waits, without an unbounded copy when the disk was
    # away.
    batch: int = 16 << 20
    # Bytes that one step of cleaning gives to the owner's thread: about a millisecond of its time.
    step: int = 256 << 10
    # So many live items of the whole journal are looked through for those of the segment that is cleaned, which takes
    # half a millisecond of the owner's time. Where there are more, or with 0, the segment is read for them.
    picked: int = 10_000
    # What may wait in memory for a disk that is slow or full. `append` refuses beyond it.
    backlog: int = 256 << 20
    # A full disk is asked again after the first wait, doubling up to the longest: soon after space is there, no busy
    # loop.
    retry_first: float = 0.05
    retry_longest: float = 5.0
    # How long `close` waits for the last sync. A disk that hangs must not hang the process with it.
    close: float = 10.0
    # Files kept open for reading; the oldest used is closed first. A journal may have more segments than file handles.
    readers: int = 64

    def __post_init__(self) -> None:
        for name in ("segment", "batch", "step", "backlog", "retry_first", "retry_longest", "close", "readers"):
            if getattr(self, name) <= 0:
                raise ValueError(f"limit {name} is {getattr(self, name)}; it must be above 0")
        if self.segment < _SMALLEST_SEGMENT:
            raise ValueError(f"limit segment is {self.segment} bytes; it must be {_SMALLEST_SEGMENT} or more")
        if self.segment + self.batch + 2 * self.backlog >= _ADDRESSABLE:
            raise ValueError("limits segment + batch + 2 x backlog must stay below 4 GiB: a place has 32 bits")
