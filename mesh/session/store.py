"""What sessions ask of the journal, and what it gives back. The journal room provides it; tests put a dictionary in its
place.

``Store`` is a base class and not a ``Protocol``: compiled, a call through a base is a jump through a table, one through
a protocol a search by name, which costs twenty times as much.
"""

from __future__ import annotations

from typing import final

from mypy_extensions import mypyc_attr


@final
class Item:
    """One item as recovery gives it back: without its body, which ``Store.read`` reads when it is wanted.

    ``id`` is the number that ``Store.append`` returned (unsigned 64 bit); it orders all items. ``kind`` (8 bit),
    ``owner`` (64 bit) and ``meta`` are what was appended.
    """

    __slots__ = ("id", "kind", "meta", "owner")

    def __init__(self, id: int, kind: int, owner: int, meta: bytes) -> None:
        self.id = id
        self.kind = kind
        self.owner = owner
        self.meta = meta


@mypyc_attr(allow_interpreted_subclasses=True)
class Store:
    """Items with an identifier that grows; see ``mesh.journal.journal.Journal`` for the meaning of each call.
    ``position`` is the sequence number of the last record appended."""

    __slots__ = ("position",)

    def __init__(self, position: int = 0) -> None:
        self.position = position

    def append(self, kind: int, owner: int, meta: bytes, body: bytes) -> int:
        """Keep an item; it is durable once the journal reports a position of at least the identifier returned."""
        raise NotImplementedError

    def drop(self, id: int) -> None:
        """Let an item go."""
        raise NotImplementedError

    def read(self, id: int) -> bytes:
        """The body of a live item."""
        raise NotImplementedError
