"""One owner for each directory: an advisory lock that the system releases when the process ends, for any reason."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final, final

from mesh.journal.errors import LockedError

_NAME: Final = "lock"
_LONGEST_HOLDER: Final = 32  # bytes; more than the decimal digits of a process number


@final
class DirectoryLock:
    """Holds ``flock`` on a file in the directory, with the number of the process in it."""

    __slots__ = ("_handle",)

    def __init__(self, directory: Path) -> None:
        """Raises ``LockedError`` at once when another process or journal holds the lock."""
        self._handle = os.open(directory / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._handle, _LONGEST_HOLDER, 0).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise LockedError(directory, holder) from None
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        os.close(self._handle)
