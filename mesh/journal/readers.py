"""Reading of bodies, in the owner's thread.

It knows places; it must never know what an item means. What always holds: at most ``limit`` files are open, the least
recently used is closed first; a returned record has passed its checksum and has the requested id.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

from mesh.journal.errors import DamageError
from mesh.journal.files import Files
from mesh.journal.layout import (
    CRC,
    OFFSET_SHIFT,
    PLACE_MASK,
    PUT_HEAD,
    PUT_HEAD_SIZE,
    SEGMENT_SHIFT,
    is_intact,
    segment_path,
)


@final
class Readers:
    """The handles of recently read segments."""

    __slots__ = ("_directory", "_files", "_handles", "_limit")

    def __init__(self, files: Files, directory: Path, limit: int) -> None:
        self._files = files
        self._directory = directory
        self._limit = limit
        self._handles: dict[int, int] = {}  # in the order of their last use

    def body(self, id: int, place: int) -> bytes:
        """The body of the put at ``place``; ``DamageError`` when it is damaged, ``OSError`` from the disk."""
        number = place >> SEGMENT_SHIFT
        offset = place >> OFFSET_SHIFT & PLACE_MASK
        record = self._files.read(self._handle(number), place & PLACE_MASK, offset)
        if not is_intact(record) or len(record) != place & PLACE_MASK:
            raise DamageError(segment_path(self._directory, number), offset, f"item {id} is damaged")
        _, _, meta_length, _, found, _ = PUT_HEAD.unpack_from(record)
        if found != id:
            what = f"found item {found} in place of item {id}"
            raise DamageError(segment_path(self._directory, number), offset, what)
        return record[PUT_HEAD_SIZE + meta_length : -CRC.size]

    def forget(self, number: int) -> None:
        """Close the file of a segment that will be deleted."""
        handle = self._handles.pop(number, -1)
        if handle != -1:
            self._files.close(handle)

    def close(self) -> None:
        for number in list(self._handles):
            self.forget(number)

    def _handle(self, number: int) -> int:
        handle = self._handles.pop(number, -1)
        if handle == -1:
            if len(self._handles) >= self._limit:
                self.forget(next(iter(self._handles)))
            handle = self._files.open(segment_path(self._directory, number), create=False)
        self._handles[number] = handle
        return handle
