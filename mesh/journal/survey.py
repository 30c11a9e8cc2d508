"""A survey: what of a journal can be read, and what is lost. It reads all bytes and changes nothing.

Recovery stops at the first damage; the survey continues after it. It knows the layout; it must never know what an item
means. What always holds:

- An item counts as kept only if its newest copy passes its checksum.
- Where the frame is damaged, records are read one by one. The index, if it is valid, says where they are; else their
  own lengths do, and everything from the first record without a valid length to the next frame is lost.
- A drop has no checksum of its own. In a damaged frame without an index, drops count only if a damaged record explains
  the damage: to deliver a message again is better than to lose another one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple, final

from mesh.journal.errors import DamageError
from mesh.journal.files import Files
from mesh.journal.frames import Frame, Frames
from mesh.journal.index import load_index
from mesh.journal.layout import (
    CRC,
    DROP,
    DROP_RECORD,
    DROP_SIZE,
    HEADER_SIZE,
    OFFSET_SHIFT,
    PLACE_MASK,
    PUT,
    PUT_HEAD,
    PUT_HEAD_SIZE,
    Entry,
    Header,
    is_intact,
    parse_header,
    parse_records,
    segment_path,
)
from mesh.journal.manifest import DAMAGE, PLAN, SALVAGED, Manifest, Mark, Named, load_manifest, noted_damage
from mesh.journal.recovery import segment_numbers

# Words for the state of a segment and of the manifest.
WHOLE: Final = "whole"
DAMAGED: Final = "damaged"
MISSING: Final = "missing"


class LiveItem(NamedTuple):
    """One item that was not dropped. ``size``: bytes of its record; 0 when the record is not known. ``intact``: the
    record passes its checksum; else only the fields here are known, and the body is lost."""

    id: int
    kind: int
    owner: int
    meta: bytes
    segment: int
    offset: int
    size: int
    intact: bool


class Gap(NamedTuple):
    """Records that cannot be read: the positions of the first and the last. ``last`` is 0 when it is unknown."""

    first: int
    last: int


@final
class SegmentSurvey:
    """One segment: ``first`` is the position of its first record, ``records`` how many can be read; ``faults`` are
    sentences."""

    __slots__ = ("faults", "first", "length", "number", "records", "state")

    def __init__(self, number: int, first: int, length: int) -> None:
        self.number = number
        self.first = first
        self.length = length
        self.records = 0
        self.state: str = WHOLE
        self.faults: list[str] = []

    def fail(self, state: str, fault: str) -> None:
        self.state = state
        self.faults.append(fault)


@final
class Survey:
    """What was found. ``manifest`` is one of the words above; ``position`` is the last position known from any source;
    ``faults`` concern the whole journal. ``items`` are live, by id."""

    __slots__ = ("faults", "gaps", "id", "items", "manifest", "position", "segments")

    def __init__(self) -> None:
        self.id = ""
        self.manifest: str = WHOLE
        self.position = 0
        self.faults: list[str] = []
        self.segments: list[SegmentSurvey] = []
        self.gaps: list[Gap] = []
        self.items: dict[int, LiveItem] = {}

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged or missing."""
        return not self.faults and all(segment.state == WHOLE for segment in self.segments)

    def lost(self) -> list[LiveItem]:
        """Items that are known to be live and cannot be read."""
        return [item for item in self.items.values() if not item.intact]

    def all_faults(self) -> list[str]:
        """All faults, each with its file."""
        found = list(self.faults)
        for segment in self.segments:
            found += segment.faults
        return found


def survey(files: Files, directory: Path, mark: Mark | None, in_use: bool = False) -> Survey:
    """Read the journal in ``directory``, which need not exist. ``mark``: what the node keeps outside of it, if that is
    known. ``in_use``: its owner runs, so the last segment may end in a batch that is being written. ``OSError`` when
    the disk cannot be read."""
    return _Surveyor(files, directory, mark, in_use).run()


@final
class _Surveyor:
    __slots__ = ("_directory", "_files", "_found", "_in_use", "_manifest", "_mark")

    def __init__(self, files: Files, directory: Path, mark: Mark | None, in_use: bool) -> None:
        self._files = files
        self._directory = directory
        self._mark = mark
        self._in_use = in_use
        self._manifest: Manifest | None = None
        self._found = Survey()

    def run(self) -> Survey:
        found = self._found
        try:
            names = self._files.names(self._directory)
        except FileNotFoundError:
            names = []
        if SALVAGED in names or PLAN in names:
            found.faults.append(f"{self._directory}: the salvage of the journal was interrupted: it must be repeated")
            return found
        if DAMAGE in names:
            found.faults.append(f"found in use: {noted_damage(self._files, self._directory)}")
        numbers = segment_numbers(names)
        self._read_manifest(numbers)
        headers = self._headers(numbers)
        position = headers[0][1].base if headers else 0
        for index, (segment, header, present) in enumerate(headers):
            if header.base > position:  # the segment before this one is missing, and nothing says what it had
                self._lose(position + 1, header.base)
            if not present and header.base < position:  # nothing says where it began
                header = Header(header.number, header.salt, position, 0)
                segment.first = position + 1
            following = headers[index + 1][1] if index + 1 < len(headers) else None
            position = self._segment(segment, header, present, following)
        found.position = max(found.position, position)
        self._compare_positions(position)
        return found

    def _read_manifest(self, numbers: list[int]) -> None:
        found, mark = self._found, self._mark
        if mark is not None:
            found.position = mark.position
        try:
            manifest = self._manifest = load_manifest(self._files, self._directory)
        except DamageError as error:
            found.manifest = DAMAGED
            found.faults.append(f"{error.path}: {error.what}")
            return
        if manifest is not None:
            found.id = manifest.id.hex()
            found.position = max(found.position, manifest.position)
            if mark is not None and mark.id != found.id and not manifest.salvaged:
                found.faults.append(f"{self._directory}: this is journal {found.id}, the node's journal is {mark.id}")
            return
        found.manifest = MISSING
        if mark is not None:
            if numbers:
                found.faults.append(f"{self._directory}: the manifest of journal {mark.id} is missing")
            else:
                what = f"the journal is missing: journal {mark.id} had records up to {mark.position} or more"
                found.faults.append(f"{self._directory}: {what}")
                self._lose(1, 0)

    def _compare_positions(self, position: int) -> None:
        found, mark, manifest = self._found, self._mark, self._manifest
        if mark is None or manifest is None or mark.id != found.id or position >= mark.position:
            return
        if found.whole:
            what = f"it ends with record {position}, but records up to {mark.position} were durable"
            found.faults.append(f"{self._directory}: {what}")
            self._lose(position + 1, mark.position)

    def _headers(self, numbers: list[int]) -> list[tuple[SegmentSurvey, Header, bool]]:
        """For each segment that should be there: its survey, its header (from the manifest where the file's is not
        readable), and whether the file can be read."""
        named: dict[int, Named] = {}
        if self._manifest is not None:
            named = {segment.number: segment for segment in self._manifest.segments}
            numbers = [number for number in numbers if number >= self._manifest.segments[0].number]
        expected = sorted({*numbers, *named})
        if expected:
            expected = list(range(expected[0], expected[-1] + 1))
        result = []
        for number in expected:
            present = number in numbers
            header, size = self._header(number) if present else (None, 0)
            known = named.get(number)
            wrong = header is None or header.number != number
            if known is not None and header is not None and (header.salt, header.base) != (known.salt, known.base):
                wrong = True
            if wrong and known is None and present and size <= HEADER_SIZE and number == expected[-1]:
                continue  # a crash interrupted the creation of the segment: it never had a frame
            segment = SegmentSurvey(number, 0, size)
            path = segment_path(self._directory, number)
            if wrong:
                if present:
                    segment.fail(DAMAGED, f"{path}: the header of the segment is damaged, or of another segment")
                else:
                    segment.fail(MISSING, f"{path}: the segment is missing")
                header = Header(number, 0, 0, 0) if known is None else Header(number, known.salt, known.base, 0)
            assert header is not None
            segment.first = header.base + 1
            result.append((segment, header, present and (not wrong or known is not None)))
            self._found.segments.append(segment)
        return result

    def _header(self, number: int) -> tuple[Header | None, int]:
        handle = self._files.open(segment_path(self._directory, number), create=False)
        try:
            return parse_header(self._files.read(handle, HEADER_SIZE, 0)), self._files.size(handle)
        finally:
            self._files.close(handle)

    def _segment(self, segment: SegmentSurvey, header: Header, present: bool, following: Header | None) -> int:
        """Read one segment; returns the last position that it had, as far as is known."""
        last = self._found.position if following is None else following.base
        if not present:
            self._lose(header.base + 1, last if last > header.base else 0)
            return max(last, header.base)
        handle = self._files.open(segment_path(self._directory, segment.number), create=False)
        try:
            return self._read(handle, segment, header, following)
        finally:
            self._files.close(handle)

    def _read(self, handle: int, segment: SegmentSurvey, header: Header, following: Header | None) -> int:
        path = segment_path(self._directory, segment.number)
        size = self._files.size(handle)
        synced = self._synced(segment.number)
        if following is not None and following.before:
            synced = following.before
        if size < synced:
            segment.fail(DAMAGED, f"{path}: {synced} bytes were synced, but it ends at byte {size}")
            if size < HEADER_SIZE:
                last = self._found.position if following is None else following.base
                self._lose(header.base + 1, last if last > header.base else 0)
                return max(last, header.base)
        growing = following is None or not synced
        end = size if growing else min(size, synced)
        segment.length = end
        frames = Frames(self._files, handle, header, end)
        index = None if growing else load_index(self._files, self._directory, header, synced)
        if index is not None:
            # It has the stubs of all records: only the bodies are checked, one by one where a frame is damaged.
            whole = self._check(frames, segment)
            for stubs in index.frames():
                segment.records += len(stubs.entries)
                self._replay(-1 if whole else handle, segment, stubs.stubs, stubs.entries)
            return index.position
        self._scan(frames, segment, synced, growing)
        last = self._found.position if following is None and segment.state != WHOLE else 0
        if following is not None:
            last = following.base
        if last > frames.position:
            self._lose(frames.position + 1, last)
            return last
        return frames.position

    def _synced(self, number: int) -> int:
        if self._manifest is None:
            return 0
        return next((named.length for named in self._manifest.segments if named.number == number), 0)

    def _check(self, frames: Frames, segment: SegmentSurvey) -> bool:
        """Whether all frames are whole."""
        path = segment_path(self._directory, segment.number)
        while frames.offset != frames.end:
            if frames.next() is None:
                segment.fail(DAMAGED, f"{path}: the frame at byte {frames.offset} is damaged")
                if frames.damaged() is None and not frames.skip():
                    break
        return segment.state == WHOLE

    def _scan(self, frames: Frames, segment: SegmentSurvey, synced: int, growing: bool) -> None:
        path = segment_path(self._directory, segment.number)
        while frames.offset != frames.end:
            frame = frames.next()
            if frame is not None:
                self._frame(frame, segment)
                continue
            if growing and frames.offset >= synced and (self._in_use or not frames.has_later_frame()):
                segment.length = frames.offset  # a torn end, which was never acknowledged
                return
            segment.fail(DAMAGED, f"{path}: the frame at byte {frames.offset} is damaged")
            position = frames.position
            frame = frames.damaged()
            if frame is not None:
                self._damaged_frame(frame, segment)
            elif frames.skip():
                self._lose(position + 1, frames.position)
            else:
                if growing and self._found.position <= position:
                    self._lose(position + 1, 0)  # how many there were is not known
                return

    def _frame(self, frame: Frame, segment: SegmentSurvey) -> None:
        try:
            entries, _ = parse_records(frame.payload, frame.records, frame.offset, True)
        except ValueError as error:
            path = segment_path(self._directory, segment.number)
            segment.fail(DAMAGED, f"{path}: the frame at byte {frame.offset}: {error}")
            self._lose(frame.first, frame.first + frame.records - 1)
            return
        segment.records += len(entries)
        for id, place, kind, owner, at, stub in entries:
            if place:
                meta = frame.payload[at + PUT_HEAD_SIZE : at + stub]
                intact = is_intact(frame.payload[at : at + (place & PLACE_MASK)])
                self._put(segment, id, place, kind, owner, meta, intact)
            else:
                self._found.items.pop(id, None)

    def _damaged_frame(self, frame: Frame, segment: SegmentSurvey) -> None:
        """Read the records of a damaged frame one by one, as far as their lengths lead."""
        payload = frame.payload
        at = number = 0
        drops: list[int] = []
        explained = False
        while number < frame.records and at < len(payload):
            if payload[at] == DROP and at + DROP_SIZE <= len(payload):
                drops.append(DROP_RECORD.unpack_from(payload, at)[1])
                at += DROP_SIZE
            elif payload[at] == PUT and at + PUT_HEAD_SIZE <= len(payload):
                _, kind, meta_length, body_length, id, owner = PUT_HEAD.unpack_from(payload, at)
                stub = PUT_HEAD_SIZE + meta_length
                size = stub + body_length + CRC.size
                if at + size > len(payload):
                    break
                intact = is_intact(payload[at : at + size])
                if intact:
                    place = (frame.offset + at) << OFFSET_SHIFT | size
                    self._put(segment, id, place, kind, owner, payload[at + PUT_HEAD_SIZE : at + stub], True)
                else:
                    explained = True
                    self._lose(frame.first + number, frame.first + number)
                at += size
            else:
                break
            number += 1
        segment.records += number
        if number < frame.records or at != len(payload):
            self._lose(frame.first + number, frame.first + frame.records - 1)
        if explained:
            for id in drops:
                self._found.items.pop(id, None)

    def _replay(self, handle: int, segment: SegmentSurvey, stubs: bytes, entries: list[Entry]) -> None:
        """Records as the index has them. ``handle`` is -1 when the segment is whole: no record need be read."""
        for id, place, kind, owner, at, stub in entries:
            if not place:
                self._found.items.pop(id, None)
                continue
            intact = handle == -1
            if not intact:
                size = place & PLACE_MASK
                record = self._files.read(handle, size, place >> OFFSET_SHIFT)
                intact = len(record) == size and is_intact(record) and PUT_HEAD.unpack_from(record)[4] == id
            self._put(segment, id, place, kind, owner, stubs[at + PUT_HEAD_SIZE : at + stub], intact)

    def _put(
        self, segment: SegmentSurvey, id: int, place: int, kind: int, owner: int, meta: bytes, intact: bool
    ) -> None:
        before = self._found.items.get(id)
        if not intact and before is not None and before.intact:
            return  # a copy that cleaning made is damaged, and the original is still there
        offset, size = place >> OFFSET_SHIFT, place & PLACE_MASK
        self._found.items[id] = LiveItem(id, kind, owner, meta, segment.number, offset, size, intact)

    def _lose(self, first: int, last: int) -> None:
        self._found.gaps.append(Gap(first, last))
