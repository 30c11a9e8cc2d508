"""What passes between the owner's thread and the commit thread.

Nothing here is shared in the sense that both change it: who sends a message keeps no hold on its lists.
"""

from __future__ import annotations

from typing import NamedTuple, final


@final
class Handover:
    """Records for one batch, in the order of their sequence numbers: ``first`` to ``last``, set when it is handed over.

    ``parts`` joined are the records, ``stubs`` joined their stubs. ``ids`` are the items put here, ``places`` where
    each stands: ``offset << 32 | length``, with offsets from the start of this hand-over.
    """

    __slots__ = ("first", "ids", "last", "parts", "places", "size", "stubs")

    def __init__(self, first: int) -> None:
        self.first: int = first
        self.last: int = 0
        self.size: int = 0
        self.parts: list[bytes] = []
        self.stubs: list[bytes] = []
        self.ids: list[int] = []
        self.places: list[int] = []


class Clean(NamedTuple):
    """Owner → thread: read on in this segment, the oldest, and say what is live in it.

    ``items`` names its live items, id and offset << 32 | length, where the owner could find them all at little cost:
    then only they are read. It counts in the first order for a segment.
    """

    number: int
    items: list[tuple[int, int]] | None


class Remove(NamedTuple):
    """Owner → thread: nothing refers to this segment any more."""

    number: int


class Stop(NamedTuple):
    """Owner → thread: end when all before this is done."""


class Written(NamedTuple):
    """Thread → owner: these hand-overs are synced, as one frame of segment ``number``.

    ``offset`` is where the first one starts, ``disk`` the bytes of all segments, ``duration`` in seconds.
    """

    handovers: list[Handover]
    number: int
    offset: int
    disk: int
    segments: int
    duration: float


@final
class Failed:
    """Thread → owner: the batch was not written and will be tried again."""

    __slots__ = ("error",)

    def __init__(self, error: OSError) -> None:
        self.error = error


class Copies(NamedTuple):
    """Thread → owner: live items of the segment that is cleaned: id, offset << 32 | length, record, stub length.

    ``finished`` when the segment holds no more.
    """

    items: list[tuple[int, int, bytes, int]]
    finished: bool


@final
class Unreadable:
    """Thread → owner: the oldest segment cannot be cleaned, as it is damaged or the disk does not give it."""

    __slots__ = ("error",)

    def __init__(self, error: OSError) -> None:
        self.error = error


class Removed(NamedTuple):
    """Thread → owner: the segment is gone from the disk."""

    disk: int
    segments: int


Order = Handover | Clean | Remove | Stop
Report = Written | Failed | Copies | Unreadable | Removed
