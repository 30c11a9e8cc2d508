"""A block of memory that outlives the process of a node, and not the machine.

The block is a file on ``/dev/shm`` that the node's folder points to, and not a file in the folder: a page of a file on
a disk blocks the loop when the disk hangs, and ends the process when the disk is full. It must never know what is in
the block. What always holds: all pages of a new block are there, so writing to it later cannot fail; a block of another
user is not read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
from pathlib import Path
from typing import Final

_SHARED: Final = Path("/dev/shm")


def lay_block(path: Path, size: int) -> mmap.mmap:
    """A new block of ``size`` bytes, which ``path`` leads to; the old one is removed. Raises ``OSError``."""
    remove_block(path)
    if os.access(_SHARED, os.W_OK):
        file, name = tempfile.mkstemp(prefix="mesh-", dir=_SHARED)
    else:
        file, name = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), ""
    try:
        if name:
            path.symlink_to(name)
        if os.write(file, bytes(size)) < size:  # a page that cannot be had later would end the process
            raise OSError(f"there is no room for {size} bytes in {name or path}")
        return mmap.mmap(file, size)
    except OSError:
        remove_block(path)
        if name:
            Path(name).unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def remove_block(path: Path) -> None:
    """Remove the block that ``path`` leads to, if there is one."""
    with contextlib.suppress(OSError):
        if path.is_symlink() and _own(path):
            path.resolve().unlink()
        path.unlink()


def read_block(path: Path) -> bytes:
    """The bytes of the block that ``path`` leads to; empty if there is none."""
    try:
        return path.read_bytes() if _own(path) else b""
    except OSError:
        return b""


def _own(path: Path) -> bool:
    """Whether the block is this user's. A link may be older than the machine's start, and its target another user's."""
    return path.stat().st_uid == os.geteuid()
