"""What the engine asks of the journal. The journal room provides it; tests put a dictionary in its place."""

from __future__ import annotations

from typing import Protocol


class Store(Protocol):
    """Items with an identifier that grows; see ``mesh.journal.journal.Journal`` for the meaning of each call."""

    @property
    def position(self) -> int:
        """Sequence number of the last record appended."""

    def append(self, kind: int, owner: int, meta: bytes, body: bytes) -> int:
        """Keep an item; it is durable once the journal reports a position of at least the identifier returned."""

    def drop(self, id: int) -> None:
        """Let an item go."""

    def read(self, id: int) -> bytes:
        """The body of a live item."""
