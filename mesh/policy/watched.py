"""A file that is read again when it changes.

It knows a path and a reader: never what the file means. What always holds: the file is read in a thread, never in the
loop; a file that cannot be used leaves the content before it in force, and is reported once for each change of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar, final

PERIOD: Final = 0.4
"""Seconds between two looks at the file: a change is in force within a second."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@final
class WatchedFile(Generic[T]):
    """``read`` reads the file, in a thread; it raises ``OSError`` or ``ValueError`` if the file cannot be used.
    ``take`` gets what it returned, in the loop."""

    def __init__(self, path: Path, read: Callable[[], T], take: Callable[[T], None], period: float = PERIOD) -> None:
        self.path = path
        self._read = read
        self._take = take
        self._period = period
        self._seen: tuple[int, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self.fault = ""
        """Why the file is not in force as it is, in one sentence; empty if it is."""

    async def start(self) -> None:
        """Read the file, and follow its changes. Raises what ``read`` raises."""
        self._seen = await asyncio.to_thread(_state, self.path)  # before the file is read: a change meanwhile is seen
        self._take(await asyncio.to_thread(self._read))
        self._task = asyncio.create_task(self._follow(), name=f"watch of {self.path}")

    async def stop(self) -> None:
        """Follow it no longer."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._period)
            state = await asyncio.to_thread(_state, self.path)
            if state == self._seen:
                continue
            self._seen = state
            try:
                content = await asyncio.to_thread(self._read)
            except (OSError, ValueError) as error:
                self.fault = f"{self.path} cannot be used: {getattr(error, 'strerror', None) or error}"
                log.error("%s; what it was before stays in force", self.fault)
                continue
            except Exception:
                log.exception("%s could not be read; what it was before stays in force", self.path)
                continue
            self.fault = ""
            log.info("%s has changed and is in force", self.path)
            self._take(content)


def _state(path: Path) -> tuple[int, ...]:
    """What changes with the file: also when another file takes its place."""
    try:
        about = os.stat(path)
    except OSError:
        return ()
    return about.st_mtime_ns, about.st_size, about.st_ino, about.st_ctime_ns
