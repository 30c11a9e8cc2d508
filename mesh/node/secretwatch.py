"""The mesh secret of a node, read again when its file changes.

It knows the file and since when the mesh runs: never what is proved. What always holds: the file counts only if it
changed after this run of the mesh began; until then the node has the secret of its assignment, also on a machine with a
file of an earlier run. A file that cannot be used leaves the secret as it is, and is logged once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Final, final

from mesh.policy.secrets import MeshSecret, SecretError, read
from mesh.registry.tasks import end

PERIOD: Final = 0.5  # seconds between two looks at the file

log = logging.getLogger(__name__)


def read_changed(file: Path, since: float) -> bytes | None:
    """The content of the file if it changed after ``since``, in seconds since 1970. The time of the change of its inode
    counts, which a copy cannot keep. Raises ``SecretError``, ``OSError``."""
    try:
        return read(file) if file.stat().st_ctime >= since else None
    except FileNotFoundError:
        return None


@final
class SecretWatch:
    """One task. ``secret`` takes what changes."""

    def __init__(self, file: Path, since: float, secret: MeshSecret) -> None:
        self._file = file
        self._since = since
        self._secret = secret
        self._seen: tuple[int, ...] = ()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Follow the file from now on."""
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="watch of the mesh secret")

    async def stop(self) -> None:
        """Follow it no longer."""
        task, self._task = self._task, None
        if task is not None:
            await end(task)

    async def _follow(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:
                log.exception("the mesh secret could not be looked at")
            await asyncio.sleep(PERIOD)

    async def _look(self) -> None:
        state = await asyncio.to_thread(_state, self._file)
        if state == self._seen:
            return
        self._seen = state  # first: a change while it is read is seen the next time
        try:
            data = await asyncio.to_thread(read_changed, self._file, self._since)
        except (SecretError, OSError) as error:
            log.error("the mesh secret stays as it is: %s", getattr(error, "strerror", None) or error)
            return
        before = self._secret.marks()
        if data is not None:
            self._secret.take(data)
        if self._secret.marks() != before:
            log.info("the mesh secret has changed: %d valid", len(self._secret.marks()))


def _state(file: Path) -> tuple[int, ...]:
    try:
        about = os.stat(file)
    except OSError:
        return ()
    return about.st_ino, about.st_size, about.st_ctime_ns
