"""What a SUBACK waits for besides the journal: other nodes that must confirm the subscription first."""

from __future__ import annotations

from typing import final


@final
class Gate:
    """``pending`` is the number of nodes that have not answered yet. The gate is open when it is 0."""

    __slots__ = ("pending",)

    def __init__(self, pending: int) -> None:
        self.pending = pending
