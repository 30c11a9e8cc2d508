"""Salvage: a damaged journal is replaced by one with everything that can still be read.

It knows what ``survey`` found; it must never know what an item means. It runs while the journal's owner does not, under
the journal's lock. What always holds:

- No byte of the damaged journal is deleted: its files get the suffix ``.damaged``, and stay until the operator removes
  them.
- ``salvage.plan`` is on the disk before the first new segment, and has its number: the next salvage removes what an
  interrupted one has written. When all new segments are synced, ``manifest.salvage`` is written; from then
  on an interrupted salvage is finished, not repeated. While one of the two files exists the journal does not open.
- Items keep their ids. The new journal has an id of its own and says that it replaces another (``Manifest.salvaged``),
  and its positions begin far behind the last known one: numbers of lost records are not used again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, final

from isal.isal_zlib import crc32

from mesh.journal.errors import DamageError
from mesh.journal.files import Files
from mesh.journal.index import SUFFIX, UNFINISHED_SUFFIX
from mesh.journal.layout import (
    CRC,
    FRAME_SIZE,
    HEADER_SIZE,
    PUT,
    PUT_HEAD,
    Header,
    pack_frame,
    pack_header,
    segment_path,
)
from mesh.journal.limits import JournalLimits
from mesh.journal.lock import DirectoryLock
from mesh.journal.manifest import (
    DAMAGE,
    NAME,
    PLAN,
    SALVAGED,
    Manifest,
    Mark,
    Named,
    new_id,
    pack_manifest,
    read_manifest,
    save_manifest,
    write_new,
)
from mesh.journal.recovery import segment_numbers
from mesh.journal.segments import fresh_header
from mesh.journal.survey import LiveItem, Survey, survey

OLD: Final = ".damaged"

# How many records a lost segment had may be unknown; no segment has as many as this.
_LEAP: Final = 1 << 32
_FRAME: Final = 1 << 20  # bytes of records in one frame


class Salvaged(NamedTuple):
    """``kept``: items of the new journal; ``stripped``: those among them that lost their body; ``lost``: items that are
    known to be lost. ``survey`` is ``None`` when an interrupted salvage was finished."""

    kept: int
    stripped: int
    lost: int
    survey: Survey | None


def salvage(
    files: Files,
    directory: Path,
    mark: Mark | None,
    without_body: Callable[[int], bool],
    limits: JournalLimits | None = None,
) -> Salvaged | None:
    """Replace the damaged journal in ``directory``; ``None`` when it is whole, and nothing was done.

    ``without_body``: whether an item of this kind is of use without its body. ``LockedError`` when the journal is open,
    ``OSError`` from the disk; then the old journal is as it was, or the call must be repeated (see above).
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = DirectoryLock(directory)
    try:
        ready = _ready(files, directory)
        if ready is not None:
            _put_in_place(files, directory, ready)
            return Salvaged(0, 0, 0, None)
        found = survey(files, directory, mark)
        if found.whole:
            return None
        kept = [item for item in found.items.values() if item.intact]
        stripped = [item for item in found.lost() if without_body(item.kind)]
        bounds = limits or JournalLimits()
        number = _first_number(files, directory)
        write_new(files, directory / PLAN, CRC.pack(number) + CRC.pack(crc32(CRC.pack(number))))
        files.sync_directory(directory)
        writer = _Writer(files, directory, bounds.segment, number, found.position + _LEAP)
        try:
            _copy(files, directory, kept, writer)
            for item in stripped:
                writer.add(_without_body(item))
            manifest = writer.finish()
        finally:
            writer.close()
        _put_in_place(files, directory, manifest)
        return Salvaged(len(kept) + len(stripped), len(stripped), len(found.lost()) - len(stripped), found)
    finally:
        lock.release()


def _ready(files: Files, directory: Path) -> Manifest | None:
    """The manifest of a salvage that was interrupted when it was complete; else what it has written is removed."""
    try:
        manifest = read_manifest(files, directory / SALVAGED)
    except DamageError:  # it was not synced
        manifest = None
    names = files.names(directory)
    if manifest is None and PLAN in names:
        first = _planned(files, directory / PLAN)
        for name in names:
            if name == SALVAGED or (first and name in _named_from(first, names)):
                files.unlink(directory / name)
        files.sync_directory(directory)
        files.unlink(directory / PLAN)
        files.sync_directory(directory)
    return manifest


def _planned(files: Files, path: Path) -> int:
    """The number of the first new segment; 0 when the plan was not synced, so that there is none yet."""
    handle = files.open(path, create=False)
    try:
        data = files.read(handle, 2 * CRC.size, 0)
    finally:
        files.close(handle)
    number = data[: CRC.size]
    return int(CRC.unpack(number)[0]) if data[CRC.size :] == CRC.pack(crc32(number)) else 0


def _named_from(first: int, names: list[str]) -> set[str]:
    return {segment_path(Path(), number).name for number in segment_numbers(names) if number >= first}


def _first_number(files: Files, directory: Path) -> int:
    """A number above those of all segments that are or were here: no name is used again."""
    names = [name.removesuffix(OLD) for name in files.names(directory)]
    numbers = segment_numbers(names)
    try:
        manifest = read_manifest(files, directory / NAME)
    except DamageError:
        manifest = None
    if manifest is not None:
        numbers.append(manifest.segments[-1].number)
    return max(numbers, default=0) + 1


def _copy(files: Files, directory: Path, items: list[LiveItem], writer: _Writer) -> None:
    """Copy the records of the items, in the order of their places."""
    handle, number = -1, 0
    try:
        for item in sorted(items, key=_place):
            if item.segment != number:
                if handle != -1:
                    files.close(handle)
                    handle = -1
                number = item.segment
                handle = files.open(segment_path(directory, number), create=False)
            writer.add(files.read(handle, item.size, item.offset))
    finally:
        if handle != -1:
            files.close(handle)


def _place(item: LiveItem) -> tuple[int, int]:
    return item.segment, item.offset


def _without_body(item: LiveItem) -> bytes:
    record = PUT_HEAD.pack(PUT, item.kind, len(item.meta), 0, item.id, item.owner) + item.meta
    return record + CRC.pack(crc32(record))


def _put_in_place(files: Files, directory: Path, manifest: Manifest) -> None:
    """Rename the old files, then write the manifest. Each step may have been done already."""
    new = {segment_path(directory, segment.number).name for segment in manifest.segments}
    names = files.names(directory)
    for name in names:
        if (name.endswith(".log") and name not in new) or (name == NAME and not _is(files, directory / name, manifest)):
            files.replace(directory / name, directory / _old_name(name, names))
        elif name.endswith((SUFFIX, UNFINISHED_SUFFIX)) or name == DAMAGE:
            files.unlink(directory / name)
    files.sync_directory(directory)
    save_manifest(files, directory, manifest)
    # The plan first: a plan without ``manifest.salvage`` says that the new segments are to be removed.
    for name in (PLAN, SALVAGED):
        if name in files.names(directory):
            files.unlink(directory / name)
            files.sync_directory(directory)


def _old_name(name: str, names: list[str]) -> str:
    """The name of an old file. A salvage before this one may have left a file of the same name."""
    old, number = name + OLD, 1
    while old in names:
        number += 1
        old = f"{name}.{number}{OLD}"
    return old


def _is(files: Files, path: Path, manifest: Manifest) -> bool:
    try:
        return read_manifest(files, path) == manifest
    except DamageError:
        return False


@final
class _Writer:
    """Writes the segments of the new journal, each record as a copy."""

    __slots__ = (
        "_directory",
        "_files",
        "_handle",
        "_header",
        "_length",
        "_limit",
        "_parts",
        "_position",
        "_segments",
        "_size",
    )

    def __init__(self, files: Files, directory: Path, limit: int, number: int, position: int) -> None:
        self._files = files
        self._directory = directory
        self._limit = limit
        self._position = position
        self._parts: list[bytes] = []
        self._size = 0
        self._segments: list[Named] = []
        self._header: Header = fresh_header(number, position, 0)
        self._length = 0
        self._handle = -1

    def close(self) -> None:
        """Close what is open. The files of a writer that is not finished are left for the next salvage to remove."""
        if self._handle != -1:
            self._files.close(self._handle)
            self._handle = -1

    def add(self, record: bytes) -> None:
        self._parts.append(record)
        self._size += len(record)
        if self._size >= min(_FRAME, self._limit):
            self._flush()

    def finish(self) -> Manifest:
        """Sync everything, the manifest last."""
        self._flush()
        if self._handle == -1:
            self._begin()  # no item is left: an empty segment
        self._end()
        manifest = Manifest(new_id(), True, self._position, tuple(self._segments))
        self._files.sync_directory(self._directory)
        write_new(self._files, self._directory / SALVAGED, pack_manifest(manifest))
        self._files.sync_directory(self._directory)
        return manifest

    def _flush(self) -> None:
        count = len(self._parts)
        if not count:
            return
        payload = b"".join(self._parts)
        if self._handle == -1:
            self._begin()
        elif self._length + FRAME_SIZE + len(payload) > self._limit:
            self._end()
            self._header = fresh_header(self._header.number + 1, self._position, self._length)
            self._begin()
        head = pack_frame(self._header.salt, payload, count, self._position + 1)
        self._files.write(self._handle, [head, payload], self._length)
        self._length += len(head) + len(payload)
        self._position += count
        self._parts = []
        self._size = 0

    def _begin(self) -> None:
        path = segment_path(self._directory, self._header.number)
        self._handle = self._files.open(path, create=True)
        self._files.write(self._handle, [pack_header(self._header)], 0)
        self._length = HEADER_SIZE

    def _end(self) -> None:
        self._files.sync(self._handle)
        self.close()
        header = self._header
        self._segments.append(Named(header.number, header.salt, header.base, self._length))
