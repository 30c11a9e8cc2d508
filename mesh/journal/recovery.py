"""Recovery: from a directory to its live items.

It knows how to restore the log from the files that a crash left. What always holds afterwards:

- Every record that was reported durable is present, or ``DamageError`` names the file and the byte. The only bytes that
  are removed are the torn end of the last segment, which was never acknowledged.
- All that is kept is synced: a killed process may have left bytes that were only in the page cache.
- Every segment but the last has an index, if the disk has room for one.

Copies need no special case. Replay follows the order of the log: a later copy of an item replaces the place of the
earlier one, a drop removes the item, and no copy follows its drop (see ``cleaning``).
"""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from typing import final

from mesh.journal.errors import DamageError
from mesh.journal.files import Files
from mesh.journal.frames import Frames
from mesh.journal.index import SUFFIX, UNFINISHED_SUFFIX, Index, IndexWriter, index_path, load_index
from mesh.journal.layout import (
    HEADER_SIZE,
    PLACE_MASK,
    PUT_HEAD_SIZE,
    SEGMENT_SHIFT,
    Entry,
    Header,
    parse_header,
    parse_records,
    segment_path,
    spare_path,
)
from mesh.journal.segments import Growing, begin_segment, fresh_header, make_spare
from mesh.session.store import Item

_log = logging.getLogger(__name__)


@final
class RecoveredJournal:
    """The content of a directory. ``live_in`` counts, for each segment, the live items whose newest copy is in it;
    ``spare``: whether there is a file for the next segment."""

    __slots__ = ("growing", "items", "live_bytes", "live_in", "places", "position", "sealed", "spare")

    def __init__(self, growing: Growing, spare: bool) -> None:
        self.items: dict[int, Item] = {}
        self.places: dict[int, int | bytes] = {}
        self.live_bytes = 0
        self.live_in: dict[int, int] = {}
        self.position = 0
        self.sealed: dict[int, int] = {}
        self.growing = growing
        self.spare = spare


def recover(files: Files, directory: Path, size: int) -> RecoveredJournal:
    """Read the journal in ``directory``, or begin one with segments of ``size`` bytes; ``DamageError`` or ``OSError``
    when it cannot be read."""
    return _Recovery(files, directory, size).run()


@final
class _Recovery:
    __slots__ = ("_directory", "_files", "_items", "_places", "_size", "_spare")

    def __init__(self, files: Files, directory: Path, size: int) -> None:
        self._files = files
        self._directory = directory
        self._size = size
        self._spare = False
        self._items: dict[int, Item] = {}
        self._places: dict[int, int] = {}

    def run(self) -> RecoveredJournal:
        headers = self._headers()
        self._files.sync_directory(self._directory)  # names, too, may have been only in the page cache
        self._spare = self._spare or make_spare(self._files, self._directory, self._size)
        if not headers:
            return self._begin()
        position = headers[0].base
        sealed: dict[int, int] = {}
        for header, successor in pairwise(headers):
            self._check_base(header, position)
            position = self._replay_sealed(header, successor.before)
            sealed[header.number] = successor.before
        self._check_base(headers[-1], position)
        growing, position = self._replay_last(headers[-1])
        return self._result(growing, sealed, position)

    def _begin(self) -> RecoveredJournal:
        growing = begin_segment(self._files, self._directory, fresh_header(1, 0, 0), self._spare)
        return RecoveredJournal(growing, make_spare(self._files, self._directory, self._size))

    def _result(self, growing: Growing, sealed: dict[int, int], position: int) -> RecoveredJournal:
        result = RecoveredJournal(growing, self._spare)
        result.items = self._items
        result.sealed = sealed
        result.position = position
        for id, place in self._places.items():
            number = place >> SEGMENT_SHIFT
            result.places[id] = place
            result.live_in[number] = result.live_in.get(number, 0) + 1
            result.live_bytes += place & PLACE_MASK
        return result

    def _headers(self) -> list[Header]:
        """The headers of all segments, oldest first, after leftovers are removed."""
        names = self._files.names(self._directory)
        numbers = sorted(int(name[:-4]) for name in names if name.endswith(".log") and name[:-4].isdecimal())
        known = {index_path(self._directory, number).name for number in numbers}
        for name in names:
            if name.endswith(UNFINISHED_SUFFIX) or (name.endswith(SUFFIX) and name not in known):
                self._files.unlink(self._directory / name)
        self._spare = spare_path(self._directory).name in names
        headers: list[Header] = []
        for number in numbers:
            if headers and number != headers[-1].number + 1:
                raise DamageError(segment_path(self._directory, headers[-1].number + 1), 0, "the segment is missing")
            header = self._header(number, number == numbers[-1])
            if header is not None:
                headers.append(header)
        return headers

    def _header(self, number: int, last: bool) -> Header | None:
        path = segment_path(self._directory, number)
        handle = self._files.open(path, create=False)
        try:
            header = parse_header(self._files.read(handle, HEADER_SIZE, 0))
            size = self._files.size(handle)
        finally:
            self._files.close(handle)
        if header is not None and header.number == number:
            return header
        if not last or size > HEADER_SIZE:
            raise DamageError(path, 0, "the header of the segment is damaged")
        # The crash interrupted the creation of the segment: its header was not synced, so it never had a frame.
        self._files.unlink(path)
        self._files.sync_directory(self._directory)
        return None

    def _check_base(self, header: Header, position: int) -> None:
        if header.base != position:
            what = f"the segment follows record {header.base}, but the one before it ends with record {position}"
            raise DamageError(segment_path(self._directory, header.number), 0, what)

    def _replay_sealed(self, header: Header, length: int) -> int:
        """Replay a segment that is not the last; returns the last sequence number in it."""
        path = segment_path(self._directory, header.number)
        handle = self._files.open(path, create=False)
        try:
            if self._files.size(handle) < length:
                raise DamageError(path, self._files.size(handle), f"the segment ends, but {length} bytes were synced")
            index = load_index(self._files, self._directory, header, length)
            if index is not None:
                self._replay_index(header, index)
                return index.position
            _log.info("%s: has no valid index, reading the segment", path)
            frames = Frames(self._files, handle, header, length)
            writer = IndexWriter(self._files, self._directory, header.number)
            self._scan(header, frames, writer)
            if frames.offset != length:
                writer.abandon()
                raise DamageError(path, frames.offset, "the frame is damaged")
            writer.seal(header, length, frames.position)
            return frames.position
        finally:
            self._files.close(handle)

    def _replay_index(self, header: Header, index: Index) -> None:
        try:
            for frame in index.frames():
                self._replay(header.number, frame.stubs, frame.entries)
        except ValueError as error:
            raise DamageError(index_path(self._directory, header.number), 0, str(error)) from None

    def _replay_last(self, header: Header) -> tuple[Growing, int]:
        """Replay the last segment, cut off its torn end and sync it; returns it and the last sequence number in it."""
        path = segment_path(self._directory, header.number)
        handle = self._files.open(path, create=False)
        writer = IndexWriter(self._files, self._directory, header.number)
        try:
            frames = Frames(self._files, handle, header, self._files.size(handle))
            self._scan(header, frames, writer)
            if frames.offset != frames.end:
                if frames.has_later_frame():
                    raise DamageError(path, frames.offset, "the frame is damaged, but frames follow it")
                # An unfinished batch, or old content of a reused file.
                _log.info("%s: cut off %d bytes that are no whole batch", path, frames.end - frames.offset)
                self._files.truncate(handle, frames.offset)
            self._files.sync(handle)
        except BaseException:
            writer.abandon()
            self._files.close(handle)
            raise
        return Growing(header, handle, frames.offset, writer), frames.position

    def _scan(self, header: Header, frames: Frames, writer: IndexWriter) -> None:
        while (frame := frames.next()) is not None:
            try:
                entries, _ = parse_records(frame.payload, frame.records, frame.offset, True)
            except ValueError as error:
                raise DamageError(segment_path(self._directory, header.number), frame.offset, str(error)) from None
            self._replay(header.number, frame.payload, entries)
            writer.add(frame.records, b"".join([frame.payload[at : at + size] for _, _, _, _, at, size in entries]))

    def _replay(self, number: int, data: bytes, entries: list[Entry]) -> None:
        base = number << SEGMENT_SHIFT
        items = self._items
        places = self._places
        for id, place, kind, owner, at, size in entries:
            if place:
                items[id] = Item(id, kind, owner, data[at + PUT_HEAD_SIZE : at + size])
                places[id] = base | place
            else:
                # The id is unknown when cleaning removed the segment of the item; cleaning will remove this drop, too.
                items.pop(id, None)
                places.pop(id, None)
