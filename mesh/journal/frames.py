"""The frames of one segment, read in turn.

It knows the order of frames in a file and their checksums; it must never know what a record means. What always holds:
a frame that ``next`` returns is whole, undamaged, and follows the one before it without a gap in the sequence numbers.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

from isal.isal_zlib import crc32

from mesh.journal.files import Files
from mesh.journal.layout import FRAME_MARK, FRAME_SIZE, HEADER_SIZE, Header, parse_frame

# One read fetches many small frames; a longer frame is read by itself.
_READ_AHEAD: Final = 1 << 20


class Frame(NamedTuple):
    """``offset`` is where the payload starts in the file, in bytes."""

    payload: bytes
    records: int
    first: int
    offset: int


@final
class Frames:
    """A cursor: ``offset`` is where the next frame starts, ``position`` the last sequence number read."""

    __slots__ = ("_buffer", "_files", "_handle", "_salt", "_start", "end", "offset", "position")

    def __init__(self, files: Files, handle: int, header: Header, end: int) -> None:
        self.offset = HEADER_SIZE
        self.position = header.base
        self.end = end
        self._files = files
        self._handle = handle
        self._salt = header.salt
        self._buffer = b""
        self._start = 0

    def next(self) -> Frame | None:
        """The next frame; ``None`` when there is no whole frame at ``offset``: the end, or damage."""
        return self._read(True)

    def damaged(self) -> Frame | None:
        """The frame at ``offset`` with a whole head and a damaged payload, to read what is left of its records. Moves
        on as ``next`` does."""
        return self._read(False)

    def _read(self, whole: bool) -> Frame | None:
        """The frame at ``offset``; ``whole``: only if its payload is undamaged."""
        head = parse_frame(self._salt, self._take(self.offset, FRAME_SIZE))
        if head is None or head.first != self.position + 1:
            return None
        start = self.offset + FRAME_SIZE
        payload = self._take(start, head.length)
        if len(payload) != head.length or (whole and crc32(payload, self._salt) != head.crc):
            return None
        self.offset = start + head.length
        self.position += head.records
        return Frame(payload, head.records, head.first, start)

    def has_later_frame(self) -> bool:
        """Whether there is the head of a frame anywhere behind ``offset``.

        A frame is written only after the one before it is synced. So a broken frame with another one behind it was once
        whole: it is damage. A broken frame with none behind it is the torn end of a write that was never acknowledged,
        or old content of the file as an earlier segment.
        """
        return self._later_frame() is not None

    def skip(self) -> bool:
        """Move to the next head of a frame behind the damaged one at ``offset``; ``False`` when there is none."""
        found = self._later_frame()
        if found is None:
            return False
        self.offset, self.position = found
        return True

    def _later_frame(self) -> tuple[int, int] | None:
        """Where the next head of a frame is, and the last position before that frame."""
        data = self._files.read(self._handle, self.end - self.offset, self.offset)
        at = data.find(FRAME_MARK, 1)
        while at != -1:
            head = parse_frame(self._salt, data[at : at + FRAME_SIZE])
            if head is not None and head.first > self.position:
                return self.offset + at, head.first - 1
            at = data.find(FRAME_MARK, at + 1)
        return None

    def _take(self, offset: int, size: int) -> bytes:
        size = min(size, self.end - offset)
        at = offset - self._start
        if at + size > len(self._buffer):
            self._buffer = self._files.read(self._handle, min(max(size, _READ_AHEAD), self.end - offset), offset)
            self._start = offset
            at = 0
        return self._buffer[at : at + size]
