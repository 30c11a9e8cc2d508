"""Ends tasks."""

from __future__ import annotations

import asyncio
from typing import Any, Final

AGAIN: Final = 1.0
"""Seconds after which a task that still runs is cancelled again: a library may have swallowed the first
cancellation."""


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and return when all have ended, for any reason."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
    for task in tasks:
        if not task.cancelled():
            # The caller does not need the exception; retrieve it, so that asyncio does not log it.
            task.exception()
