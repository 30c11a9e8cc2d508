"""Cleaning: the live items of the oldest segment go to the end of the log, then the segment is deleted.

This file is the half that reads, in the commit thread. The half that decides is ``Journal``, in the owner's thread.

Why the oldest, and why a drop is never copied
----------------------------------------------
The log is a circle: it grows at one end and is cleaned at the other. Let S be the oldest segment.

1. *No copy follows its drop.* Every record, and every copy, gets its place in the log from the owner's thread, which
   appends a copy only while the item is live. So all copies of an item stand before its drop.
2. *A drop in S refers to nothing outside S.* By 1 all copies of its item stand before it, in S or in older segments,
   and there are none. So when S is deleted the drop goes together with everything it was about. The deletion is one
   unlink.
3. *What is not copied was dropped durably, or has a newer copy.* The owner notes the last sequence number when the
   last copy is appended. An item that was passed over had been dropped by then, so its drop has a number up to that
   one. S is deleted when that number is durable, and with it every copy. Without this rule a crash could lose an item
   whose drop, and whatever replaced it, were still in memory.
4. *A crash between copy and deletion leaves several copies.* They are the same byte for byte, and have the same id, so
   the order of ids at recovery is kept. Replaying takes the last copy; a drop after any of them stands after all of
   them (1) and kills all.
5. *Deletions do not overtake each other.* A drop in the segment after S may be about an item in S. So the removal of
   S is synced before the next segment is touched.

What the two threads share
--------------------------
``is_live`` reads the owner's table from the commit thread: one dictionary look-up, atomic in CPython, and only a hint
that saves the reading of dead items. The owner looks again before it appends the copy. An item of a sealed segment can
only go from live to dead, or to a newer place by way of this cleaning, so the hint never hides a live item. Reads by
the owner go to the old place until the copy is durable, and S is only deleted after every place in it has been
replaced; the owner counts them, and a segment in which an item is left is never deleted.

Where the owner names the live items itself (``Picker``), the names are those of one moment. The same holds: an item
can only die or move later, the owner looks again, and nothing new can come to live in a sealed segment.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from mesh.journal.errors import DamageError
from mesh.journal.files import Files
from mesh.journal.frames import Frames
from mesh.journal.layout import (
    HEADER_SIZE,
    OFFSET_SHIFT,
    PLACE_MASK,
    PUT_HEAD,
    PUT_HEAD_SIZE,
    parse_header,
    parse_records,
    segment_path,
    sound,
)
from mesh.journal.messages import Copies

# Dead bytes cost the owner nothing, so more may be read than copied: cleaning must gain on a log that grows while
# half of what is read is live.
_READ_PER_COPY: Final = 4

# id, segment, offset << 32 | length
IsLive = Callable[[int, int, int], bool]


@final
class Picker:
    """Gives named items of one sealed segment in bounded steps. Where few items live, as the sessions of clients whose
    messages are soon delivered, this spares the reading of all that is dead."""

    __slots__ = ("_files", "_handle", "_items", "_path", "_taken")

    def __init__(self, files: Files, directory: Path, number: int, items: list[tuple[int, int]]) -> None:
        """``items``: id and place. ``OSError`` when the segment cannot be opened."""
        self._path = segment_path(directory, number)
        self._files = files
        self._items = sorted(items, key=_place)
        self._taken = 0
        self._handle = files.open(self._path, create=False)

    def step(self, size: int) -> Copies:
        """The next items that stand within ``size`` bytes, with one read. ``DamageError`` when one is not there."""
        found: list[tuple[int, int, bytes, int]] = []
        if self._taken < len(self._items):
            first = self._items[self._taken][1]
            start = first >> OFFSET_SHIFT
            data = self._files.read(self._handle, max(size, first & PLACE_MASK), start)
            while self._taken < len(self._items):
                id, place = self._items[self._taken]
                at = (place >> OFFSET_SHIFT) - start
                end = at + (place & PLACE_MASK)
                if found and end > len(data):
                    break
                found.append(self._item(id, place, data[at:end]))
                self._taken += 1
        return Copies(found, self._taken == len(self._items))

    def close(self) -> None:
        self._files.close(self._handle)

    def _item(self, id: int, place: int, record: bytes) -> tuple[int, int, bytes, int]:
        if len(record) != place & PLACE_MASK or not sound(record) or PUT_HEAD.unpack_from(record)[4] != id:
            raise DamageError(self._path, place >> OFFSET_SHIFT, f"item {id} is damaged")
        return id, place, record, PUT_HEAD_SIZE + PUT_HEAD.unpack_from(record)[2]


def _place(item: tuple[int, int]) -> int:
    return item[1]


@final
class Cleaner:
    """A cursor over one sealed segment that finds its live items, and gives them in bounded steps."""

    __slots__ = ("_files", "_found", "_frames", "_given", "_handle", "_is_live", "_path", "number")

    def __init__(self, files: Files, directory: Path, number: int, length: int, is_live: IsLive) -> None:
        """``DamageError`` or ``OSError`` when the segment cannot be read."""
        self.number = number
        self._path = segment_path(directory, number)
        self._files = files
        self._is_live = is_live
        self._found: list[tuple[int, int, bytes, int]] = []
        self._given = 0
        self._handle = files.open(self._path, create=False)
        header = parse_header(files.read(self._handle, HEADER_SIZE, 0))
        if header is None or header.number != number:
            files.close(self._handle)
            raise DamageError(self._path, 0, "the header of the segment is damaged")
        self._frames = Frames(files, self._handle, header, length)

    def step(self, size: int) -> Copies:
        """Live items of ``size`` bytes or a little more, after reading a few times that at most."""
        items: list[tuple[int, int, bytes, int]] = []
        live = 0
        limit = self._frames.offset + _READ_PER_COPY * size
        while live < size:
            if self._given == len(self._found) and not self._read_frame():
                return Copies(items, True)
            while live < size and self._given < len(self._found):
                item = self._found[self._given]
                self._given += 1
                if self._is_live(item[0], self.number, item[1]):
                    items.append(item)
                    live += len(item[2])
            if self._frames.offset >= limit:
                break
        return Copies(items, False)

    def close(self) -> None:
        self._files.close(self._handle)

    def _read_frame(self) -> bool:
        self._found = []
        self._given = 0
        frame = self._frames.next()
        if frame is None:
            if self._frames.offset != self._frames.end:
                raise DamageError(self._path, self._frames.offset, "the frame is damaged")
            return False
        entries, _ = parse_records(frame.payload, frame.records, frame.offset, True)
        for id, place, _, _, at, stub in entries:
            if place and self._is_live(id, self.number, place):
                record = frame.payload[at : at + (place & PLACE_MASK)]
                if not sound(record):
                    raise DamageError(self._path, frame.offset + at, f"item {id} is damaged")
                self._found.append((id, place, record, stub))
        return True
