"""Waiting for conditions, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def eventually(holds: Callable[[], object], what: str, deadline: float = 20.0) -> None:
    """Return once ``holds()`` is true; fail with ``what`` after ``deadline`` seconds."""
    until = time.monotonic() + deadline
    while not holds():
        assert time.monotonic() < until, f"not within {deadline} s: {what}"
        await asyncio.sleep(0.01)
