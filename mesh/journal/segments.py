"""The segments of one journal on the disk, and the one that grows.

Used by the commit thread. It knows files and their synced lengths; it must never know which items are live.
What always holds:

- Everything before ``_synced`` in the growing segment is on the disk, and so is every other segment up to the length
  that the header of its successor names. Beyond that there is at most one frame, which was never acknowledged, and old
  content of a reused file.
- When there is no room for a write, its torn part is cut off, and the same place is written again.
- When a write or its sync fails for another reason, the page cache may hold bytes that look clean but never reach the
  disk. So that file is not written again: the frame goes to a new segment, whose header says where the old one ends.
- A segment is named in the manifest before its first frame is written, and no longer named before it is removed.
- Only the oldest segment is removed, and its removal is synced before the next one's.
- One file is kept as a spare, and the next segment is written over it: a sync of bytes in allocated blocks writes no
  metadata of the file system and takes about half the time of a growing file. A removed segment becomes the spare. If
  there is none at the start, one is filled with zeros. PostgreSQL does the same with its write-ahead log.
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
from mesh.journal.manifest import Manifest, Named, save_manifest

_log = logging.getLogger(__name__)

_ZEROS: Final = bytes(1 << 20)
# The errors for a disk without room. Whether the write or its sync fails, only bytes of this frame can be lost, and all
# of them are written again; there would be no room for another segment.
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)

# The spare file.
_NONE: Final = 0
_NAMED: Final = 1  # it is renamed, but after a crash it may be a segment again
_READY: Final = 2


class Growing(NamedTuple):
    """The last segment, ready for appends: its handle, its synced length and the writer of its index."""

    header: Header
    handle: int
    length: int
    indexer: IndexWriter


def create_segment(files: Files, directory: Path, header: Header) -> Growing:
    """A new segment, synced together with its name. ``OSError`` leaves no file, unless removing it fails as well."""
    path = segment_path(directory, header.number)
    try:
        handle = files.open(path, create=True)
    except FileExistsError:  # left by a failed attempt; nothing in it was ever acknowledged
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
    """The spare file as a new segment, synced together with its name. After ``OSError`` the file may have either name:
    ``create_segment`` or the next start removes it."""
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
    """A new segment, over the spare file if there is one. Raises ``OSError`` as the function that it calls does."""
    return (reuse_segment if spare else create_segment)(files, directory, header)


def make_spare(files: Files, directory: Path, size: int) -> bool:
    """Fill a spare file with ``size`` bytes of zeros, synced together with its name. ``False`` when the disk fails: a
    journal works without it."""
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
    except OSError as error:  # the next segment reuses this file or replaces it; both are correct
        _log.warning("%s: not removed: %s", path, error)


def fresh_header(number: int, base: int, before: int) -> Header:
    return Header(number, secrets.randbits(32), base, before)


@final
class Segments:
    """Appends frames, begins the next segment, removes the oldest. Used by one thread."""

    __slots__ = (
        "_directory",
        "_distrusted",
        "_files",
        "_growing",
        "_id",
        "_leaving",
        "_limit",
        "_named",
        "_position",
        "_salvaged",
        "_saved",
        "_sealed",
        "_spare",
        "_synced",
        "disk",
    )

    def __init__(
        self,
        files: Files,
        directory: Path,
        limit: int,
        sealed: dict[int, Named],
        growing: Growing,
        position: int,
        spare: bool,
        manifest: Manifest,
        named: bool,
    ) -> None:
        """``sealed`` are the segments before the growing one, oldest first; ``position`` is the last record's sequence
        number; ``spare``: whether there is a spare file; ``named``: whether ``manifest``, which is on the disk, names
        the growing segment."""
        self._files = files
        self._directory = directory
        self._limit = limit
        self._sealed = sealed
        self._growing = growing
        self._synced = growing.length
        self._position = position
        self._distrusted = False
        self._spare = _READY if spare else _NONE
        self._id = manifest.id
        self._salvaged = manifest.salvaged
        self._leaving = 0  # the segment that is being removed
        self._saved = manifest.position
        self._named = named
        self.disk = sum([segment.length for segment in sealed.values()]) + growing.length

    @property
    def count(self) -> int:
        return len(self._sealed) + 1

    @property
    def number(self) -> int:
        """The number of the growing segment."""
        return self._growing.header.number

    def length(self, number: int) -> int:
        """Synced bytes of a sealed segment."""
        return self._sealed[number].length

    def append(self, payload: bytes, count: int, first: int, stubs: bytes) -> int:
        """Write and sync one frame; returns where its payload starts in segment ``number``.

        After ``OSError`` the frame is not part of the log, and the call can be repeated.
        """
        size = FRAME_SIZE + len(payload)
        if self._distrusted or (self._synced > HEADER_SIZE and self._synced + size > self._limit):
            self._roll()
        if not self._named:
            self._save_manifest()
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
        """Delete the oldest segment. After ``OSError`` the removal may be half done; the call can be repeated."""
        path = segment_path(self._directory, number)
        self._unname(number)
        try:
            self._delete_or_keep(path, self._sealed[number].length)
        except FileNotFoundError:
            _log.debug("%s: was removed by the previous attempt", path)
        self._files.sync_directory(self._directory)
        if self._spare == _NAMED:
            self._spare = _READY
        self.disk -= self._sealed.pop(number).length
        try:
            self._files.unlink(index_path(self._directory, number))
        except FileNotFoundError:
            _log.debug("%s: had no index", path)
        except OSError as error:  # the next start removes an index without a segment
            _log.warning("%s: index not removed: %s", path, error)

    def _delete_or_keep(self, path: Path, length: int) -> None:
        """Make the file the spare, or delete it if there is a spare or its length is unusual."""
        if self._spare == _NONE and length <= 2 * self._limit:
            self._files.replace(path, spare_path(self._directory))
            self._spare = _NAMED
        else:
            self._files.unlink(path)

    def close(self) -> None:
        """Record how far the growing segment is synced, and close it."""
        if self._position != self._saved or not self._named:
            try:
                self._save_manifest()
            except OSError as error:  # it has an earlier length and position, which are true as well
                _log.warning("%s: manifest not written: %s", self._directory, error)
        self._growing.indexer.abandon()
        self._files.close(self._growing.handle)

    def _save_manifest(self) -> None:
        segments = [segment for segment in self._sealed.values() if segment.number != self._leaving]
        header = self._growing.header
        segments.append(Named(header.number, header.salt, header.base, self._synced))
        manifest = Manifest(self._id, self._salvaged, self._position, tuple(segments))
        save_manifest(self._files, self._directory, manifest)
        self._saved = self._position
        self._named = True

    def _unname(self, number: int) -> None:
        """Write the manifest without a segment that will be removed. A full disk must not prevent that: the removal is
        what makes room. So the spare file is given up for it."""
        self._leaving = number
        try:
            self._save_manifest()
        except OSError as error:
            if error.errno not in _NO_ROOM or self._spare != _READY:
                raise
            self._spare = _NONE
            self._files.unlink(spare_path(self._directory))
            self._save_manifest()

    def _roll(self) -> None:
        old = self._growing
        header = fresh_header(old.header.number + 1, self._position, self._synced)
        spare = self._spare == _READY
        if spare:
            self._spare = _NONE
        new = begin_segment(self._files, self._directory, header, spare)
        old.indexer.seal(old.header, self._synced, self._position)
        was = old.header
        self._sealed[was.number] = Named(was.number, was.salt, was.base, self._synced)
        self._growing = new
        self._named = False
        self._synced = new.length
        self.disk += new.length
        self._distrusted = False
        self._files.close(old.handle)

    def _cut(self) -> None:
        """Remove what a failed write or sync left after the synced bytes."""
        try:
            self._files.truncate(self._growing.handle, self._synced)
        except OSError as error:
            self._distrusted = True
            _log.warning("segment %d: torn end not cut off, continuing in a new segment: %s", self.number, error)
