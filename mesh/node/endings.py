"""What a node has given up while it serves, and ends in the background: a listener, a receiver of spans.

What always holds: each ending is an owned task, which ``stop`` waits for, and cancels if it takes too long; an error is
logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, final

from mesh.registry.tasks import end

log = logging.getLogger(__name__)


@final
class Endings:
    """Used on the node's loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def add(self, ending: Coroutine[Any, Any, object], what: str) -> None:
        """Run ``ending``; log lines name it by ``what``."""
        task = asyncio.get_running_loop().create_task(ending, name=what)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def stop(self, seconds: float) -> None:
        """Wait until all have ended; after ``seconds`` they are cancelled."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            await end(*late)
