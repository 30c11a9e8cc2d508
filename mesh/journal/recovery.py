"""Recovery: from a directory to its live items.

It knows how to restore the log from the files that a crash left. What always holds afterwards:

- Every record that was reported durable is present, or ``DamageError`` names the file and the byte. The only bytes that
  are removed are the torn end of the last segment, which was never acknowledged.
- Every segment that the manifest names is present, and as long as it was synced. A journal without a manifest is of an
  earlier version and gets one; a journal whose mark (see ``manifest``) says that it had one does not.
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

from mesh.journal.errors import NOWHERE, DamageError
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
from mesh.journal.manifest import (
    DAMAGE,
    NAME,
    PLAN,
    SALVAGED,
    UNFINISHED,
    Manifest,
    Mark,
    Named,
    describe,
    load_manifest,
    new_id,
    noted_damage,
    save_manifest,
)
from mesh.journal.segments import Growing, begin_segment, fresh_header, make_spare
from mesh.session.store import Item

_log = logging.getLogger(__name__)


@final
class RecoveredJournal:
    """The content of a directory. ``live_in`` counts, for each segment, the live items whose newest copy is in it;
    ``spare``: whether there is a file for the next segment; ``named``: whether ``manifest`` is on the disk and names
    the growing segment."""

    __slots__ = (
        "growing",
        "items",
        "live_bytes",
        "live_in",
        "manifest",
        "named",
        "places",
        "position",
        "sealed",
        "spare",
    )

    def __init__(self, growing: Growing, spare: bool, manifest: Manifest, named: bool) -> None:
        self.items: dict[int, Item] = {}
        self.places: dict[int, int | bytes] = {}
        self.live_bytes = 0
        self.live_in: dict[int, int] = {}
        self.position = 0
        self.sealed: dict[int, Named] = {}
        self.growing = growing
        self.spare = spare
        self.manifest = manifest
        self.named = named


def recover(files: Files, directory: Path, size: int, mark: Mark | None) -> RecoveredJournal:
    """Read the journal in ``directory``, or begin one with segments of ``size`` bytes; ``DamageError`` or ``OSError``
    when it cannot be read, or is not the one that ``mark`` describes."""
    return _Recovery(files, directory, size, mark).run()


def segment_numbers(names: list[str]) -> list[int]:
    """The numbers of the segments among the names of a directory, in order."""
    return sorted(int(name[:-4]) for name in names if name.endswith(".log") and name[:-4].isdecimal())


def has_journal(files: Files, directory: Path) -> bool:
    """Whether there is anything of a journal in a directory, which need not exist."""
    try:
        names = files.names(directory)
    except FileNotFoundError:
        return False
    return NAME in names or SALVAGED in names or PLAN in names or bool(segment_numbers(names))


def check_mark(directory: Path, manifest: Manifest, position: int, mark: Mark) -> None:
    """Compare a journal that ends with record ``position`` with its mark; ``DamageError`` when it is another journal,
    or an older copy."""
    id = manifest.id.hex()
    if id != mark.id:
        if not manifest.salvaged:
            raise DamageError(directory, NOWHERE, f"this is journal {id}, but the node's journal is {mark.id}")
    elif position < mark.position:
        what = f"the journal ends with record {position}, but records up to {mark.position} were durable"
        raise DamageError(directory, NOWHERE, what)


@final
class _Recovery:
    __slots__ = ("_directory", "_files", "_items", "_manifest", "_mark", "_named", "_places", "_size", "_spare")

    def __init__(self, files: Files, directory: Path, size: int, mark: Mark | None) -> None:
        self._files = files
        self._directory = directory
        self._size = size
        self._mark = mark
        self._manifest: Manifest | None = None
        self._named: dict[int, Named] = {}
        self._spare = False
        self._items: dict[int, Item] = {}
        self._places: dict[int, int] = {}

    def run(self) -> RecoveredJournal:
        names = self._files.names(self._directory)
        if SALVAGED in names or PLAN in names:
            what = "the salvage of the journal was interrupted: it must be repeated"
            raise DamageError(self._directory, NOWHERE, what)
        if DAMAGE in names:
            noted = noted_damage(self._files, self._directory)
            raise DamageError(self._directory, NOWHERE, f"the journal was found damaged while it was in use ({noted})")
        self._manifest = load_manifest(self._files, self._directory)
        numbers = segment_numbers(names)
        self._check_mark(numbers)
        headers = self._headers(names, numbers)
        self._files.sync_directory(self._directory)  # names, too, may have been only in the page cache
        self._spare = self._spare or make_spare(self._files, self._directory, self._size)
        if not headers:
            return self._begin()
        position = headers[0].base
        sealed: dict[int, Named] = {}
        for header, successor in pairwise(headers):
            self._check_base(header, position)
            length = successor.before
            self._check_length(header.number, length)
            position = self._replay_sealed(header, length)
            sealed[header.number] = Named(header.number, header.salt, header.base, length)
        self._check_base(headers[-1], position)
        growing, position = self._replay_last(headers[-1])
        try:
            if self._manifest is not None and self._mark is not None:
                check_mark(self._directory, self._manifest, position, self._mark)
        except DamageError:
            growing.indexer.abandon()
            self._files.close(growing.handle)
            raise
        return self._result(growing, sealed, position)

    def _begin(self) -> RecoveredJournal:
        growing = begin_segment(self._files, self._directory, fresh_header(1, 0, 0), self._spare)
        self._spare = make_spare(self._files, self._directory, self._size)
        return self._result(growing, {}, 0)

    def _result(self, growing: Growing, sealed: dict[int, Named], position: int) -> RecoveredJournal:
        manifest, named = self._save_manifest(growing, sealed, position)
        result = RecoveredJournal(growing, self._spare, manifest, named)
        result.items = self._items
        result.sealed = sealed
        result.position = position
        for id, place in self._places.items():
            number = place >> SEGMENT_SHIFT
            result.places[id] = place
            result.live_in[number] = result.live_in.get(number, 0) + 1
            result.live_bytes += place & PLACE_MASK
        return result

    def _save_manifest(
        self, growing: Growing, sealed: dict[int, Named], position: int
    ) -> tuple[Manifest, bool]:
        """The manifest, and whether it is on the disk. A full disk does not prevent the start."""
        before, header = self._manifest, growing.header
        id = new_id() if before is None else before.id
        # What a salvage has lost is accepted until the mark outside of the directory knows the new journal.
        salvaged = before is not None and before.salvaged and (self._mark is None or self._mark.id != id.hex())
        last = Named(header.number, header.salt, header.base, growing.length)
        manifest = Manifest(id, salvaged, position, (*sealed.values(), last))
        if manifest == before:
            return manifest, True
        try:
            save_manifest(self._files, self._directory, manifest)
        except OSError as error:
            _log.warning("%s: manifest not written, will retry: %s", self._directory, error)
            return manifest, False
        return manifest, True

    def _check_mark(self, numbers: list[int]) -> None:
        """Compare the directory with the mark: whether this is the journal that the node had."""
        manifest, mark = self._manifest, self._mark
        if mark is None:
            return
        if manifest is not None:
            check_mark(self._directory, manifest, mark.position, mark)
        elif numbers:
            what = f"the manifest of journal {mark.id} is missing"
            raise DamageError(self._directory / NAME, NOWHERE, what)
        else:
            what = f"the journal is missing: journal {mark.id} was here and had records up to {mark.position} or more"
            raise DamageError(self._directory, NOWHERE, what)

    def _headers(self, names: list[str], numbers: list[int]) -> list[Header]:
        """The headers of all segments, oldest first, after leftovers are removed."""
        manifest = self._manifest
        if manifest is not None:
            self._named = {named.number: named for named in manifest.segments}
            numbers = self._without_removed(numbers, manifest.segments[0].number)
            self._check_named(manifest, numbers)
        known = {index_path(self._directory, number).name for number in numbers}
        for name in names:
            if name.endswith(UNFINISHED_SUFFIX) or (name.endswith(SUFFIX) and name not in known) or name == UNFINISHED:
                self._files.unlink(self._directory / name)
        self._spare = spare_path(self._directory).name in names
        headers: list[Header] = []
        for number in numbers:
            if headers and number != headers[-1].number + 1:
                raise DamageError(
                    segment_path(self._directory, headers[-1].number + 1), NOWHERE, "the segment is missing"
                )
            header = self._header(number, number == numbers[-1])
            if header is not None:
                headers.append(header)
        return headers

    def _without_removed(self, numbers: list[int], first: int) -> list[int]:
        """Remove the segments that the manifest no longer names: all that lived in them has been copied."""
        for number in numbers:
            if number < first:
                self._files.unlink(segment_path(self._directory, number))
        return [number for number in numbers if number >= first]

    def _check_named(self, manifest: Manifest, numbers: list[int]) -> None:
        bases = [named.base for named in manifest.segments[1:]] + [manifest.position]
        for named, following in zip(manifest.segments, bases, strict=True):
            if named.number not in numbers:
                path = segment_path(self._directory, named.number)
                raise DamageError(path, NOWHERE, f"the segment is missing ({describe(named, following)})")

    def _check_length(self, number: int, length: int) -> None:
        """``length`` of a segment is what was found. It may be longer than in the manifest, never shorter."""
        named = self._named.get(number)
        if named is not None and length < named.length:
            path = segment_path(self._directory, number)
            raise DamageError(path, length, f"{named.length} bytes of the segment were synced, but it ends")

    def _header(self, number: int, last: bool) -> Header | None:
        path = segment_path(self._directory, number)
        handle = self._files.open(path, create=False)
        try:
            header = parse_header(self._files.read(handle, HEADER_SIZE, 0))
            size = self._files.size(handle)
        finally:
            self._files.close(handle)
        named = self._named.get(number)
        if header is not None and header.number == number:
            if named is not None and (named.salt, named.base) != (header.salt, header.base):
                raise DamageError(path, 0, "another segment is in place of the one that the manifest names")
            return header
        if named is not None and size < HEADER_SIZE:
            raise DamageError(path, size, f"{named.length} bytes of the segment were synced, but it ends")
        if named is not None or not last or size > HEADER_SIZE:
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
                what = f"{length} bytes of the segment were synced, but it ends"
                raise DamageError(path, self._files.size(handle), what)
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
            self._check_length(header.number, frames.offset)
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
