"""Waits for a condition with a deadline.

It knows time, but not what it waits for. It checks a condition often at first and less often later, so that a short
wait costs little time and a long wait little work. A condition that is not true in time fails the test.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator

PATIENCE = 30.0  # seconds; a deadline for a shared machine, not an expectation
FIRST_PAUSE = 0.001  # seconds; a message takes some milliseconds, and a test run has thousands of waits
LONGEST_PAUSE = 0.02


async def until(condition: Callable[[], object], what: str = "", seconds: float = PATIENCE) -> None:
    """Wait on the event loop until ``condition()`` is true. After ``seconds`` fail with ``what``, or with the source of
    the condition."""
    for pause in _pauses(condition, what, seconds):
        await asyncio.sleep(pause)


def wait_until(condition: Callable[[], object], what: str = "", seconds: float = PATIENCE) -> None:
    """As ``until``, in a thread without an event loop."""
    for pause in _pauses(condition, what, seconds):
        time.sleep(pause)


def _pauses(condition: Callable[[], object], what: str, seconds: float) -> Iterator[float]:
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(_failure(condition, what, seconds))
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE)


def _failure(condition: Callable[[], object], what: str, seconds: float) -> str:
    return f"not within {seconds:g} s: {what or _text(condition)}"


def _text(condition: Callable[[], object]) -> str:
    """The statement that contains the condition, for example ``await until(lambda: door.connections == 1)``."""
    try:
        return inspect.getsource(condition).strip()
    except (OSError, TypeError):  # no Python function
        return repr(condition)
