"""The file system as the journal sees it: a small layer, so that tests can inject faults, losses and counters.

What always holds: every write has an explicit offset, so a failed write can be repeated without knowing how much of it
was done.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, final


class Files(Protocol):
    """Operating system calls. Each raises ``OSError``; sizes and offsets are in bytes."""

    def names(self, directory: Path) -> list[str]:
        """The names in a directory, in no order."""

    def open(self, path: Path, *, create: bool) -> int:
        """A handle for reading and writing. With ``create`` the file must not exist, else it must."""

    def close(self, handle: int) -> None: ...

    def size(self, handle: int) -> int: ...

    def read(self, handle: int, size: int, offset: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file."""

    def write(self, handle: int, buffers: Sequence[bytes], offset: int) -> None:
        """All the buffers, one after another, or ``OSError`` with any part of them written."""

    def write_synced(self, handle: int, buffers: Sequence[bytes], offset: int) -> None:
        """``write`` and ``sync`` in one call. After an ``OSError`` it is unknown which of them failed."""

    def truncate(self, handle: int, size: int) -> None: ...

    def sync(self, handle: int) -> None:
        """On return the file's bytes and its length are on the disk."""

    def sync_directory(self, directory: Path) -> None:
        """On return all creations, renames and deletions in this directory are on the disk."""

    def replace(self, source: Path, target: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...


def read_whole(files: Files, path: Path) -> bytes:
    """The content of a file."""
    handle = files.open(path, create=False)
    try:
        return files.read(handle, files.size(handle), 0)
    finally:
        files.close(handle)


@final
class SystemFiles:
    """The real calls. Reads, writes and syncs release the interpreter's lock while the kernel works."""

    __slots__ = ()

    def names(self, directory: Path) -> list[str]:
        return os.listdir(directory)

    def open(self, path: Path, *, create: bool) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)

    def close(self, handle: int) -> None:
        os.close(handle)

    def size(self, handle: int) -> int:
        return os.fstat(handle).st_size

    def read(self, handle: int, size: int, offset: int) -> bytes:
        data = os.pread(handle, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]  # the kernel gives at most 2 GiB a call and may give less
        done = len(data)
        while done < size and (data := os.pread(handle, size - done, offset + done)):
            parts.append(data)
            done += len(data)
        return b"".join(parts)

    def write(self, handle: int, buffers: Sequence[bytes], offset: int) -> None:
        done = os.pwritev(handle, buffers, offset)
        if done < sum(map(len, buffers)):
            self._write_rest(handle, b"".join(buffers), offset, done)

    def write_synced(self, handle: int, buffers: Sequence[bytes], offset: int) -> None:
        # One system call in place of two: each releases the interpreter's lock and must acquire it again.
        try:
            done = os.pwritev(handle, buffers, offset, os.RWF_DSYNC)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            done = 0  # some sandbox kernels have no RWF_DSYNC
        if done < sum(map(len, buffers)):
            self._write_rest(handle, b"".join(buffers), offset, done)
            os.fdatasync(handle)

    def _write_rest(self, handle: int, data: bytes, offset: int, done: int) -> None:
        rest = memoryview(data)
        while done < len(data):
            done += os.pwrite(handle, rest[done:], offset + done)

    def truncate(self, handle: int, size: int) -> None:
        os.ftruncate(handle, size)

    def sync(self, handle: int) -> None:
        os.fdatasync(handle)

    def sync_directory(self, directory: Path) -> None:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)
