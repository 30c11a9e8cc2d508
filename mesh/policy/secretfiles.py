"""Secrets by name, of which those in files are read again when their files change.

It knows where the secrets are: never what they are for. What always holds: they are read in a thread; a file that
cannot be used leaves the value before it in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar, final

from mesh.policy.secrettext import SecretText
from mesh.policy.watched import WatchedFile

T = TypeVar("T")


@final
class SecretFiles(Generic[T]):
    """``read`` gets the name of a secret, in a thread; it raises ``OSError`` or ``ValueError`` if the secret cannot be
    used. ``take`` gets what it returned, by name, in the loop."""

    def __init__(
        self, sources: Mapping[str, SecretText], read: Callable[[str], T], take: Callable[[Mapping[str, T]], None]
    ) -> None:
        self._sources = sources
        self._read = read
        self._take = take
        self._files: list[WatchedFile[T]] = []

    async def start(self) -> None:
        """Read all, and watch the files. Raises what ``read`` raises."""
        fixed = [name for name, source in self._sources.items() if source.file is None]
        if fixed:
            self._take(await asyncio.to_thread(lambda: {name: self._read(name) for name in fixed}))
        try:
            for name, source in self._sources.items():
                if source.file is not None:
                    await self._watch(name, source.file)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Watch no longer."""
        for file in self._files:
            await file.stop()

    def fault(self) -> str:
        """Which file is not in force as it is, and why; empty if all are."""
        return next((file.fault for file in self._files if file.fault), "")

    async def _watch(self, name: str, path: Path) -> None:
        file = WatchedFile(path, lambda: self._read(name), lambda found: self._take({name: found}))
        self._files.append(file)
        await file.start()
