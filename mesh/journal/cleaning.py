"""Cleaning: the live items of the oldest segment are copied to the end of the log, then the segment is deleted.

This file is the half that reads, in the commit thread. The half that decides is ``Journal``, in the owner's thread.

Why the oldest segment, and why a drop is never copied
------------------------------------------------------
The log grows at one end and is cleaned at the other. Let S be the oldest segment.

1. *No copy follows its drop.* The owner's thread gives every record and every copy its place in the log, and appends a
   copy only while the item is live. So all copies of an item precede its drop.
2. *A drop in S refers to nothing outside S.* By 1 all copies of its item precede it, in S or in an older segment, and
   no segment is older. So one unlink deletes the drop and the remaining copies of its item.
3. *An item that is not copied was dropped durably, or has a newer copy.* When the last copy is appended, the owner
   notes the last sequence number. An item that was not copied was dropped before, so the number of its drop is at most
   this one. S is deleted when this number, and so every copy, is durable. Without this rule a crash could lose an item
   while its drop, and the item that replaced it, were still in memory.
4. *A crash between copy and deletion leaves several copies.* They are the same byte for byte and have the same id, so
   recovery keeps the order of ids. Replay uses the last copy. A drop follows all copies (1) and removes the item.
5. *Segments are removed in order.* A drop in the segment after S may refer to an item in S. So the removal of S is
   synced before the next segment is removed.

What the two threads share
--------------------------
``is_live`` reads the owner's table from the commit thread. It is one dictionary look-up, which is atomic in CPython,
and only a hint: it avoids the reading of dead items. The owner checks again before it appends the copy. An item of a
sealed segment can only die, or move to a newer place through this cleaning, so the hint never hides a live item. The
owner reads from the old place until the copy is durable, and S is deleted only after every place in it has been
replaced. The owner counts the places: a segment that still has a live item is never deleted.

Where the owner lists the live items itself (``Picker``), the list is of one moment. The same holds: an item can only
die or move later, the owner checks again, and no item is added to a sealed segment.
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
    is_intact,
    parse_header,
    parse_records,
    segment_path,
)
from mesh.journal.messages import Copies

# Dead bytes cost the owner nothing, so more may be read than copied: cleaning must be faster than a log that grows
# while half of the bytes read are live.
_READ_PER_COPY: Final = 4

# id, segment, offset << 32 | length
IsLive = Callable[[int, int, int], bool]


@final
class Picker:
    """Reads listed items of one sealed segment in bounded steps. Where few items are live (sessions of clients whose
    messages are soon delivered), this avoids the reading of dead bytes."""

    __slots__ = ("_files", "_handle", "_items", "_path", "_taken")

    def __init__(self, files: Files, directory: Path, number: int, items: list[tuple[int, int]]) -> None:
        """``items``: id and place. ``OSError`` when the segment cannot be opened."""
        self._path = segment_path(directory, number)
        self._files = files
        self._items = sorted(items, key=_place)
        self._taken = 0
        self._handle = files.open(self._path, create=False)

    def step(self, size: int) -> Copies:
        """The next items within ``size`` bytes, with one read. ``DamageError`` when one is damaged or missing."""
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
        if len(record) != place & PLACE_MASK or not is_intact(record) or PUT_HEAD.unpack_from(record)[4] != id:
            raise DamageError(self._path, place >> OFFSET_SHIFT, f"item {id} is damaged")
        return id, place, record, PUT_HEAD_SIZE + PUT_HEAD.unpack_from(record)[2]


def _place(item: tuple[int, int]) -> int:
    return item[1]


@final
class Cleaner:
    """A cursor over one sealed segment that finds its live items and returns them in bounded steps."""

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
        """Live items of ``size`` bytes or a little more; reads at most a few times that."""
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
                if not is_intact(record):
                    raise DamageError(self._path, frame.offset + at, f"item {id} is damaged")
                self._found.append((id, place, record, stub))
        return True
