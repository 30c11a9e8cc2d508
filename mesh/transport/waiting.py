"""Waits for a condition by polling, at the start and end of a node's life, where an event would not be worth it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_STEP: Final = 0.01  # seconds


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until ``condition`` holds; returns whether it does, after ``seconds`` at the latest."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        if loop.time() >= deadline:
            return False
        await asyncio.sleep(_STEP)
    return True
