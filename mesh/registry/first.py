"""The first result of a task that retries for ever: its start waits for it.

What always holds: a result ends the wait; a failure is raised once, and the first success forgets it.
"""

from __future__ import annotations

import asyncio
from typing import final

from mesh.registry.errors import RegistryError


@final
class FirstResult:
    """Whether a task has succeeded once, or failed so that a retry cannot help."""

    __slots__ = ("_event", "_failure")

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._failure: RegistryError | None = None

    @property
    def known(self) -> bool:
        """Whether there was a result."""
        return self._event.is_set()

    def succeeded(self) -> None:
        self._failure = None
        self._event.set()

    def failed(self, error: RegistryError) -> None:
        self._failure = error
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Whether the task has succeeded, after at most ``seconds``. Raises the failure."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        return True
