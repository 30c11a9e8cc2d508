"""The interface between sessions and the journal. The journal room implements it; tests use a dictionary.

``Store`` is a base class and not a ``Protocol``: compiled, a call through a base class is a jump through a table; a
call through a protocol is a look-up by name, which takes twenty times as long.
"""

from __future__ import annotations

from typing import final

from mypy_extensions import mypyc_attr


@final
class Item:
    """One recovered item, without its body, which ``Store.read`` reads.

    ``id`` is the number that ``Store.append`` returned (unsigned 64 bit); it orders all items. ``kind`` (8 bit),
    ``owner`` (64 bit) and ``meta`` are as appended.
    """

    __slots__ = ("id", "kind", "meta", "owner")

    def __init__(self, id: int, kind: int, owner: int, meta: bytes) -> None:
        self.id = id
        self.kind = kind
        self.owner = owner
        self.meta = meta


@mypyc_attr(allow_interpreted_subclasses=True)
class Store:
    """Items with growing identifiers; see ``mesh.journal.journal.Journal`` for each call. ``position`` is the sequence
    number of the last appended record."""

    __slots__ = ("position",)

    def __init__(self, position: int = 0) -> None:
        self.position = position

    def append(self, kind: int, owner: int, meta: bytes, body: bytes) -> int:
        """Append an item. It is durable when the journal reports a position of at least the returned identifier."""
        raise NotImplementedError

    def drop(self, id: int) -> None:
        """Drop an item."""
        raise NotImplementedError

    def size(self, id: int) -> int:
        """The bytes that a live item takes on disk."""
        raise NotImplementedError

    def read(self, id: int) -> bytes:
        """The body of a live item."""
        raise NotImplementedError
