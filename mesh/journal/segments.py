"""The segments of one journal on the disk, and the one that grows.

It belongs to the commit thread. It knows files and what of them is synced; it must never know which items are live.
What always holds:

- Everything before ``_synced`` in the growing segment is on the disk, and so is every other segment up to the length
  that the header of its successor names. Beyond that there is at most one frame, about which nobody was told, and what
  the file held before.
- When there is no room for a write, its torn part is cut off, and the same place is written again.
- When a write or its sync fails otherwise, the page cache may hold bytes that will never reach the disk and yet look
  clean. So nothing more is written to that file: the frame goes to a fresh segment, whose header says where the old one
  ends.
- A segment is only removed when it is the oldest, and its removal is synced before the next.
- One file is kept as a spare, and the next segment is written over it: bytes that stand in allocated blocks are synced
  without the file system's own records, which takes about half the time of a file that grows. A removed segment becomes
  the spare; where there is none at the start, one is filled with zeros. PostgreSQL does the same with its write-ahead
  log.
"""

from __future__ import annotations

import errno
import logging
import secrets
from pathlib import Path
from typing import Final, NamedTuple, final

from mesh.journal.files import Files
from mesh.journal.index import IndexWriter, index_path
from mesh.journal.layout import FRAME_SIZE, HEADER_SIZE, Header, pack_frame, pack_header, segment_path, spare_path

_log = logging.getLogger(__name__)

_ZEROS: Final = bytes(1 << 20)
# The errors that say that the disk has no room. Whether the write or its sync met them, only bytes of this frame can be
# lost, and all of them are written again; another segment could not be begun anyhow.
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)

# The spare file.
_NONE: Final = 0
_NAMED: Final = 1  # it has its name, but after a crash it may be a segment again
_READY: Final = 2


class Growing(NamedTuple):
    """The last segment, ready to be appended to: its handle, its synced length and the index that is being written."""

    header: Header
    handle: int
    length: int
    indexer: IndexWriter


def create_segment(files: Files, directory: Path, header: Header) -> Growing:
    """A new segment, synced together with its name. ``OSError`` leaves no file, unless removing it fails as well."""
    path = segment_path(directory, header.number)
    try:
        handle = files.open(path, create=True)
    except FileExistsError:  # left by a try that failed and could not clean up; nothing in it was ever acknowledged
        files.unlink(path)
        handle = files.open(path, create=True)
    try:
        files.write(handle, [pack_header(header)], 0)
        files.sync(handle)
        files.sync_directory(directory)
    except OSError:
        files.close(handle)
        try:
            files.unlink(path)
        except OSError as error:
            _log.warning("%s: unused segment not removed: %s", path, error)
        raise
    return Growing(header, handle, HEADER_SIZE, IndexWriter(files, directory, header.number))


def reuse_segment(files: Files, directory: Path, header: Header) -> Growing:
    """The spare file as a new segment, synced together with its name. After ``OSError`` the file may have either name;
    ``create_segment`` removes it where it is in the way, and the next start where it is not."""
    spare = spare_path(directory)
    handle = files.open(spare, create=False)
    try:
        files.write(handle, [pack_header(header)], 0)
        files.sync(handle)
        files.replace(spare, segment_path(directory, header.number))
        files.sync_directory(directory)
    except OSError:
        files.close(handle)
        raise
    return Growing(header, handle, HEADER_SIZE, IndexWriter(files, directory, header.number))


def begin_segment(files: Files, directory: Path, header: Header, spare: bool) -> Growing:
    """A new segment, over the spare file if there is one. Raises ``OSError`` as the one and the other."""
    return (reuse_segment if spare else create_segment)(files, directory, header)


def make_spare(files: Files, directory: Path, size: int) -> bool:
    """Fill a spare file with ``size`` bytes of zeros, synced together with its name. ``False`` when the disk refuses: a
    journal can do without."""
    path = spare_path(directory)
    try:
        handle = files.open(path, create=True)
        try:
            for offset in range(0, size, len(_ZEROS)):
                files.write(handle, [_ZEROS[: size - offset]], offset)
            files.sync(handle)
        finally:
            files.close(handle)
        files.sync_directory(directory)
    except OSError as error:
        _log.warning("%s: no spare file: %s", path, error)
        _remove_unfinished(files, path)
        return False
    return True


def _remove_unfinished(files: Files, path: Path) -> None:
    try:
        files.unlink(path)
    except OSError as error:  # the next segment is as long as this file, or a new one; neither harms
        _log.warning("%s: not removed: %s", path, error)


def fresh_header(number: int, base: int, before: int) -> Header:
    return Header(number, secrets.randbits(32), base, before)


@final
class Segments:
    """Appends frames, rolls to the next segment, removes the oldest. One thread."""

    __slots__ = (
        "_directory",
        "_distrusted",
        "_files",
        "_growing",
        "_lengths",
        "_limit",
        "_position",
        "_spare",
        "_synced",
        "disk",
    )

    def __init__(
        self,
        files: Files,
        directory: Path,
        limit: int,
        sealed: dict[int, int],
        growing: Growing,
        position: int,
        spare: bool,
    ) -> None:
        """``sealed`` gives the length of each segment before the growing one; ``position`` is the last record's;
        ``spare``: whether there is a spare file."""
        self._files = files
        self._directory = directory
        self._limit = limit
        self._lengths = sealed
        self._growing = growing
        self._synced = growing.length
        self._position = position
        self._distrusted = False
        self._spare = _READY if spare else _NONE
        self.disk = sum(sealed.values()) + growing.length

    @property
    def count(self) -> int:
        return len(self._lengths) + 1

    @property
    def number(self) -> int:
        """Of the segment that grows."""
        return self._growing.header.number

    def length(self, number: int) -> int:
        """Synced bytes of a sealed segment."""
        return self._lengths[number]

    def append(self, payload: bytes, count: int, first: int, stubs: bytes) -> int:
        """Write and sync one frame; where its payload starts in segment ``number``.

        After ``OSError`` the frame is not part of the log, and the call can be repeated.
        """
        size = FRAME_SIZE + len(payload)
        if self._distrusted or (self._synced > HEADER_SIZE and self._synced + size > self._limit):
            self._roll()
        growing = self._growing
        try:
            head = pack_frame(growing.header.salt, payload, count, first)
            self._files.write_synced(growing.handle, [head, payload], self._synced)
        except OSError as error:
            self._distrusted = error.errno not in _NO_ROOM
            self._cut()
            raise
        offset = self._synced + FRAME_SIZE
        self._synced += size
        self.disk += size
        self._position = first + count - 1
        growing.indexer.add(count, stubs)
        return offset

    def remove(self, number: int) -> None:
        """Delete the oldest segment for good. ``OSError`` may leave it half done; the call can be repeated."""
        path = segment_path(self._directory, number)
        try:
            self._take_away(path, self._lengths[number])
        except FileNotFoundError:
            _log.debug("%s: was removed by the try before", path)
        self._files.sync_directory(self._directory)
        if self._spare == _NAMED:
            self._spare = _READY
        self.disk -= self._lengths.pop(number)
        try:
            self._files.unlink(index_path(self._directory, number))
        except FileNotFoundError:
            _log.debug("%s: had no index", path)
        except OSError as error:  # the next start removes an index without a segment
            _log.warning("%s: index not removed: %s", path, error)

    def _take_away(self, path: Path, length: int) -> None:
        """No segment has this name any more, once the directory is synced. A file of unusual length is not kept."""
        if self._spare == _NONE and length <= 2 * self._limit:
            self._files.replace(path, spare_path(self._directory))
            self._spare = _NAMED
        else:
            self._files.unlink(path)

    def close(self) -> None:
        self._growing.indexer.abandon()
        self._files.close(self._growing.handle)

    def _roll(self) -> None:
        old = self._growing
        header = fresh_header(old.header.number + 1, self._position, self._synced)
        spare = self._spare == _READY
        if spare:
            self._spare = _NONE
        new = begin_segment(self._files, self._directory, header, spare)
        old.indexer.seal(old.header, self._synced, self._position)
        self._lengths[old.header.number] = self._synced
        self._growing = new
        self._synced = new.length
        self.disk += new.length
        self._distrusted = False
        self._files.close(old.handle)

    def _cut(self) -> None:
        """Remove what a failed write or sync left behind the synced bytes."""
        try:
            self._files.truncate(self._growing.handle, self._synced)
        except OSError as error:
            self._distrusted = True
            _log.warning("segment %d: torn end not cut off, going on in a new segment: %s", self.number, error)
