"""The newest status, for everybody who asks.

Knows one blocking function and when it was last called. What always holds: one reading at most is under way, so a
hundred open pages cost as much as one; nobody waits longer than ``PATIENCE``.
"""

from __future__ import annotations

import asyncio
from typing import Final, final

from mesh.console.source import Read

# The controller looks once a second: reading more often than twice in that time shows nothing new.
KEEP: Final = 0.5

# Seconds. A file is read in a millisecond; a controller that Ray is just bringing back takes some seconds.
PATIENCE: Final = 5.0


@final
class Snapshots:
    """Use it in one event loop, and ``stop`` it there."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._reading: asyncio.Task[dict[str, object]] | None = None
        self._ended = float("-inf")

    async def latest(self) -> dict[str, object]:
        """A status that is at most ``KEEP`` seconds old. Raises what the function raises, or ``TimeoutError``."""
        loop = asyncio.get_running_loop()
        reading = self._reading
        if reading is None or (reading.done() and loop.time() - self._ended >= KEEP):
            reading = self._reading = loop.create_task(asyncio.to_thread(self._read), name="status")
            reading.add_done_callback(self._done)
        async with asyncio.timeout(PATIENCE):
            return await asyncio.shield(reading)

    def _done(self, reading: asyncio.Task[dict[str, object]]) -> None:
        self._ended = asyncio.get_running_loop().time()
        if not reading.cancelled():
            reading.exception()  # seen by those who wait; all of them may have gone

    async def stop(self) -> None:
        """Nobody asks any more. A reading that is under way ends by itself, in a thread that nobody waits for."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
