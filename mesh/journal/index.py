"""The index of a sealed segment: the segment without its bodies.

Recovery reads it in place of the segment. It knows the stubs of the records in order, from which the place of each
record follows; it must never know what an item is for. What always holds: an index is a cache. It has checksums, and
the salt and the length of its segment; an index that is missing, torn or of another segment is ignored and built again
from the segment. So it is never synced, and a failure to write it has no consequence.

::

    index = head chunk*
    head  = magic:8 number:u32 salt:u32 length:u64 position:u64 size:u64 crc:u32 head_crc:u32
    chunk = count:u32 size:u32 stub*             the stubs of one frame
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple, final

from isal.isal_zlib import crc32

from mesh.journal.files import Files, read_whole
from mesh.journal.layout import CRC, FRAME_SIZE, HEADER_SIZE, Entry, Header, parse_records

_log = logging.getLogger(__name__)

_MAGIC: Final = b"MESHIDX1"
_HEAD: Final = Struct("<8sIIQQQII")
_CHUNK: Final = Struct("<II")
# Stubs are written in pieces of this size while the segment grows, so that sealing takes little time and memory.
_PIECE: Final = 256 << 10

SUFFIX: Final = ".index"
UNFINISHED_SUFFIX: Final = ".index.new"


class Stubs(NamedTuple):
    """The records of one frame as the index has them: ``entries`` point into ``stubs``."""

    stubs: bytes
    entries: list[Entry]


class Index(NamedTuple):
    """A loaded index: the last sequence number of its segment, and its chunks."""

    position: int
    chunks: bytes

    def frames(self) -> Iterator[Stubs]:
        """The frames in order. ``ValueError`` when chunks with a correct checksum are not well formed."""
        at = 0
        offset = HEADER_SIZE
        while at < len(self.chunks):
            count, size = _CHUNK.unpack_from(self.chunks, at)
            at += _CHUNK.size
            stubs = self.chunks[at : at + size]
            at += size
            entries, offset = parse_records(stubs, count, offset + FRAME_SIZE, False)
            yield Stubs(stubs, entries)


def index_path(directory: Path, number: int) -> Path:
    return directory / f"{number:08d}{SUFFIX}"


def load_index(files: Files, directory: Path, header: Header, length: int) -> Index | None:
    """The index of the segment with this header and synced length; ``None`` when there is no valid one."""
    try:
        data = read_whole(files, index_path(directory, header.number))
    except FileNotFoundError:
        return None
    if len(data) < _HEAD.size:
        return None
    magic, number, salt, indexed, position, size, crc, head_crc = _HEAD.unpack_from(data)
    if head_crc != crc32(data[: _HEAD.size - CRC.size]):
        return None
    chunks = data[_HEAD.size :]
    if (magic, number, salt, indexed) != (_MAGIC, header.number, header.salt, length):
        return None
    if len(chunks) != size or crc32(chunks) != crc:
        return None
    return Index(position, chunks)


@final
class IndexWriter:
    """Writes the index of one segment while the segment grows. Raises nothing: a failure is logged and leaves no
    index.
    """

    __slots__ = (
        "_crc",
        "_directory",
        "_files",
        "_given_up",
        "_handle",
        "_number",
        "_waiting",
        "_waiting_size",
        "_written",
    )

    def __init__(self, files: Files, directory: Path, number: int) -> None:
        self._files = files
        self._directory = directory
        self._number = number
        self._handle = -1
        self._waiting: list[bytes] = []
        self._waiting_size = 0
        self._written = 0
        self._crc = 0
        self._given_up = False

    def add(self, count: int, stubs: bytes) -> None:
        """The stubs of the next frame."""
        if self._given_up:
            return
        self._waiting.append(_CHUNK.pack(count, len(stubs)))
        self._waiting.append(stubs)
        self._waiting_size += _CHUNK.size + len(stubs)
        if self._waiting_size >= _PIECE:
            try:
                self._flush()
            except OSError as error:
                self._give_up(error)

    def seal(self, header: Header, length: int, position: int) -> None:
        """The segment is complete with ``length`` bytes and ``position`` as its last sequence number."""
        if self._given_up:
            return
        try:
            self._flush()
            head = _HEAD.pack(
                _MAGIC, header.number, header.salt, length, position, self._written, self._crc, 0
            )[: -CRC.size]
            self._files.write(self._handle, [head, CRC.pack(crc32(head))], 0)
            self._close()
            self._files.replace(self._unfinished(), index_path(self._directory, self._number))
        except OSError as error:
            self._give_up(error)

    def abandon(self) -> None:
        """Write no index, and remove its unfinished file."""
        self._given_up = True
        self._waiting.clear()
        if self._handle == -1:
            return
        try:
            self._close()
            self._files.unlink(self._unfinished())
        except OSError as error:  # the next start removes the leftover
            _log.warning("%s: not removed: %s", self._unfinished(), error)

    def _flush(self) -> None:
        if self._handle == -1:
            self._handle = self._files.open(self._unfinished(), create=True)
        data = b"".join(self._waiting)
        self._files.write(self._handle, [data], _HEAD.size + self._written)
        self._crc = crc32(data, self._crc)
        self._written += len(data)
        self._waiting.clear()
        self._waiting_size = 0

    def _give_up(self, error: OSError) -> None:
        _log.warning("%s: index not written; the next start builds it: %s", self._unfinished(), error)
        self.abandon()

    def _close(self) -> None:
        handle, self._handle = self._handle, -1
        self._files.close(handle)

    def _unfinished(self) -> Path:
        return self._directory / f"{self._number:08d}{UNFINISHED_SUFFIX}"
