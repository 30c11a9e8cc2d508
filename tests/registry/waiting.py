"""Waiting for conditions, with a deadline."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path


async def eventually(holds: Callable[[], object], what: str, deadline: float = 20.0) -> None:
    """Return once ``holds()`` is true; fail with ``what`` after ``deadline`` seconds."""
    until = time.monotonic() + deadline
    while not holds():
        assert time.monotonic() < until, f"not within {deadline} s: {what}"
        await asyncio.sleep(0.01)


def freeze(pid: int) -> None:
    """Stop a process; returns once each of its threads has stopped, which the signal alone does not promise."""
    os.kill(pid, signal.SIGSTOP)
    until = time.monotonic() + 20.0
    while not all(_state(task) == "T" for task in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < until, f"process {pid} does not stop"
        time.sleep(0.001)


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]
