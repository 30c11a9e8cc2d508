"""What a SUBACK waits for besides the journal: others who must hear of the subscription first."""

from __future__ import annotations

from typing import final


@final
class Gate:
    """It is open when ``pending`` is 0: so many of those who must hear have not answered yet."""

    __slots__ = ("pending",)

    def __init__(self, pending: int) -> None:
        self.pending = pending
