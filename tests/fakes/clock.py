"""A clock that goes when it is told to."""

from __future__ import annotations


class FakeClock:
    """``now`` are its seconds."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
