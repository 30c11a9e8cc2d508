"""A disk in memory that distinguishes written bytes from bytes that survive a loss of power.

It implements the journal's ``Files``, with the worst behaviour that a disk may have:

- Bytes survive if the file was synced after the write. Before the sync, each write may survive completely, in part,
  with a hole, or not at all.
- Names survive if the directory was synced. Before the sync, each change survives or not, independently of others.
- After a failed sync, reads still return the bytes and a later sync succeeds, but the bytes never reach the disk.
"""

from __future__ import annotations

import errno
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path


class _Inode:
    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.synced = bytearray(data)
        self.unsynced: list[tuple[int, bytes | None]] = []  # offset and bytes; None: truncated at the offset

    def copy(self) -> _Inode:
        result = _Inode()
        result.data = bytearray(self.data)
        result.synced = bytearray(self.synced)
        result.unsynced = list(self.unsynced)
        return result


def _apply(data: bytearray, offset: int, piece: bytes | None) -> None:
    if piece is None:
        del data[offset:]
        return
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


class Disk:
    """``before`` is called before each operation with its name and path; it raises ``OSError`` to cause a fault.
    ``made`` is called with the path of each new file."""

    def __init__(self) -> None:
        self.made: Callable[[Path], None] = lambda path: None
        self.before: Callable[[str, Path], None] = lambda operation, path: None
        self.read_bytes: Counter[str] = Counter()
        self.image: Disk | None = None
        self._image_in = 0
        self._image_seed = 0
        self._at_image: Callable[[], None] = lambda: None
        self._lock = threading.RLock()
        self._names: dict[Path, _Inode] = {}
        self._synced_names: dict[Path, _Inode] = {}
        self._changes: list[tuple[Path, _Inode | None]] = []
        self._handles: dict[int, tuple[Path, _Inode]] = {}
        self._next_handle = 1000

    # For tests

    def crash(self, seed: int) -> Disk:
        """The disk as it may be after a loss of power at this moment."""
        chance = random.Random(seed)
        with self._lock:
            names = dict(self._synced_names)
            for path, inode in self._changes:
                if chance.random() < 0.5:
                    continue
                if inode is None:
                    names.pop(path, None)
                else:
                    names[path] = inode
            result = Disk()
            for path, inode in names.items():
                data = bytearray(inode.synced)
                for offset, piece in inode.unsynced:
                    self._survive(chance, data, offset, piece)
                result._names[path] = _Inode(bytes(data))
            result._synced_names = dict(result._names)
            return result

    def kill(self) -> Disk:
        """The disk as the next process finds it if this one is killed now: the page cache survives."""
        with self._lock:
            result = Disk()
            copies = {id(inode): inode.copy() for inode in [*self._names.values(), *self._synced_names.values()]}
            result._names = {path: copies[id(inode)] for path, inode in self._names.items()}
            result._synced_names = {path: copies[id(inode)] for path, inode in self._synced_names.items()}
            result._changes = [
                (path, None if inode is None else copies.get(id(inode), inode)) for path, inode in self._changes
            ]
            return result

    def take_image(self, operations: int, seed: int, then: Callable[[], None]) -> None:
        """After this number of further changes, store in ``image`` what a crash would leave, and call ``then``."""
        with self._lock:
            self.image = None
            self._image_in = operations
            self._image_seed = seed
            self._at_image = then

    def damage(self, path: Path, offset: int) -> None:
        """Flip one bit of the stored byte at ``offset``."""
        with self._lock:
            inode = self._names[path]
            inode.data[offset] ^= 0x10
            if offset < len(inode.synced):
                inode.synced[offset] ^= 0x10

    def content(self, path: Path) -> bytes:
        with self._lock:
            return bytes(self._names[path].data)

    def paths(self) -> list[Path]:
        with self._lock:
            return sorted(self._names)

    # Files

    def names(self, directory: Path) -> list[str]:
        with self._lock:
            return [path.name for path in self._names if path.parent == directory]

    def open(self, path: Path, *, create: bool) -> int:
        with self._lock:
            self.before("open", path)
            if create:
                if path in self._names:
                    raise FileExistsError(errno.EEXIST, "exists", str(path))
                self._change(path, _Inode())
                self.made(path)
            elif path not in self._names:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            self._next_handle += 1
            self._handles[self._next_handle] = (path, self._names[path])
            return self._next_handle

    def close(self, handle: int) -> None:
        with self._lock:
            del self._handles[handle]

    def size(self, handle: int) -> int:
        with self._lock:
            return len(self._handles[handle][1].data)

    def read(self, handle: int, size: int, offset: int) -> bytes:
        with self._lock:
            path, inode = self._handles[handle]
            self.before("read", path)
            data = bytes(inode.data[offset : offset + size])
            self.read_bytes[path.name] += len(data)
            return data

    def write(self, handle: int, buffers: Sequence[bytes], offset: int) -> None:
        with self._lock:
            path, inode = self._handles[handle]
            data = b"".join(buffers)
            try:
                self.before("write", path)
            except OSError:
                self._store(inode, offset, data[: len(data) // 2])
                raise
            self._store(inode, offset, data)

    def write_synced(self, handle: int, buffers: Sequence[bytes], offset: int) -> None:
        with self._lock:
            self.write(handle, buffers, offset)
            self.sync(handle)

    def truncate(self, handle: int, size: int) -> None:
        with self._lock:
            path, inode = self._handles[handle]
            self.before("truncate", path)
            self._store(inode, size, None)

    def sync(self, handle: int) -> None:
        with self._lock:
            path, inode = self._handles[handle]
            try:
                self.before("sync", path)
            except OSError:
                inode.unsynced.clear()  # the pages are marked clean, and their bytes are lost
                raise
            for offset, piece in inode.unsynced:
                _apply(inode.synced, offset, piece)
            inode.unsynced.clear()
            self._count()

    def sync_directory(self, directory: Path) -> None:
        with self._lock:
            self.before("sync_directory", directory)
            self._synced_names = dict(self._names)
            self._changes.clear()
            self._count()

    def replace(self, source: Path, target: Path) -> None:
        with self._lock:
            self.before("replace", target)
            inode = self._names[source]
            self._change(source, None)
            self._change(target, inode)
            for handle, (_, open_inode) in self._handles.items():
                if open_inode is inode:
                    self._handles[handle] = (target, inode)

    def unlink(self, path: Path) -> None:
        with self._lock:
            self.before("unlink", path)
            if path not in self._names:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            self._change(path, None)

    @property
    def open_handles(self) -> int:
        return len(self._handles)

    # Internal

    def _survive(self, chance: random.Random, data: bytearray, offset: int, piece: bytes | None) -> None:
        fate = chance.randrange(4)
        if fate == 0:
            return
        if piece is not None and piece and fate == 1:
            piece = piece[: chance.randrange(len(piece))]
        elif piece is not None and piece and fate == 2:
            hole = chance.randrange(len(piece))
            piece = piece[:hole] + bytes(min(16, len(piece) - hole)) + piece[hole + 16 :]
        _apply(data, offset, piece)

    def _store(self, inode: _Inode, offset: int, piece: bytes | None) -> None:
        _apply(inode.data, offset, piece)
        inode.unsynced.append((offset, piece))
        self._count()

    def _change(self, path: Path, inode: _Inode | None) -> None:
        if inode is None:
            del self._names[path]
        else:
            self._names[path] = inode
        self._changes.append((path, inode))
        self._count()

    def _count(self) -> None:
        if self._image_in > 0:
            self._image_in -= 1
            if self._image_in == 0:
                self.image = self.crash(self._image_seed)
                self._at_image()
