"""Waiting for a condition with a deadline, for tests whose clients live in threads and processes."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 30.0  # seconds; a deadline on a machine that others use as well, not an expectation
POLL = 0.001  # a message takes some milliseconds, and there are thousands of waits


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until ``condition`` holds; after the deadline the test has failed."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE:g} s: {what}")
        time.sleep(POLL)
