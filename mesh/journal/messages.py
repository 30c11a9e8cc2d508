"""Messages between the owner's thread and the commit thread.

The threads never change one object both: the sender of a message keeps no reference to its lists.
"""

from __future__ import annotations

from typing import NamedTuple, final


@final
class Handover:
    """Records for one batch, in the order of their sequence numbers: ``first`` to ``last``, set when it is handed over.

    ``parts`` joined are the records, ``stubs`` joined their stubs. ``ids`` are the items put here, ``places`` where
    each starts: ``offset << 32 | length``, with offsets from the start of this hand-over.
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
    """Owner → thread: run one step of cleaning over this segment, the oldest, and report its live items.

    ``items`` lists its live items (id, offset << 32 | length) where the owner can find them cheaply: then only they are
    read. Only the first order for a segment uses it.
    """

    number: int
    items: list[tuple[int, int]] | None


class Remove(NamedTuple):
    """Owner → thread: remove this segment; no live item is in it."""

    number: int


class Stop(NamedTuple):
    """Owner → thread: end after all earlier orders."""


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
    """Thread → owner: the batch was not written; the thread will retry it."""

    __slots__ = ("error",)

    def __init__(self, error: OSError) -> None:
        self.error = error


class Copies(NamedTuple):
    """Thread → owner: live items of the cleaned segment: id, offset << 32 | length, record, stub length.

    ``finished``: the segment has no more.
    """

    items: list[tuple[int, int, bytes, int]]
    finished: bool


@final
class Unreadable:
    """Thread → owner: the oldest segment cannot be cleaned, because it is damaged or the disk cannot read it."""

    __slots__ = ("error",)

    def __init__(self, error: OSError) -> None:
        self.error = error


class Removed(NamedTuple):
    """Thread → owner: the segment is removed from the disk."""

    disk: int
    segments: int


Order = Handover | Clean | Remove | Stop
Report = Written | Failed | Copies | Unreadable | Removed
