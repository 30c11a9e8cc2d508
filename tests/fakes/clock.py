"""A clock that a test advances."""

from __future__ import annotations


class FakeClock:
    """``now`` is the time in seconds."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
