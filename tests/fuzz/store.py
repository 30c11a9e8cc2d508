"""A journal in memory that can crash at any point, at a cost that does not depend on its size."""

from __future__ import annotations

from struct import error as StructError

from mesh.journal.layout import PUT, PUT_HEAD
from tests.fakes.store import MemoryStore, Stored


class CrashStore(MemoryStore):
    """``items`` are live; ``disk`` has the items of the last ``commit``, which survive a crash. To drop an item twice,
    or to read a dropped item, raises ``KeyError``."""

    def __init__(self, disk: dict[int, Stored] | None = None, position: int = 0) -> None:
        super().__init__(disk, position)
        self._pending: list[Stored | int] = []  # since the last commit: new items, and numbers of dropped items

    def append(self, kind: int, owner: int, meta: bytes, body: bytes) -> int:
        try:
            PUT_HEAD.pack(PUT, kind, len(meta), len(body), self.position + 1, owner)
        except StructError as error:  # the journal refuses it too
            what = f"kind {kind}, {len(meta)} bytes of meta, {len(body)} of body"
            raise ValueError(f"an item with {what} cannot be stored: {error}") from None
        id = super().append(kind, owner, meta, body)
        self._pending.append(self.items[id])
        return id

    def drop(self, id: int) -> None:
        super().drop(id)
        self._pending.append(id)

    def commit(self, position: int | None = None) -> int:
        """Make the changes up to ``position`` durable, or all; returns the durable position."""
        count = len(self._pending) if position is None else max(0, position - self.durable)
        for record in self._pending[:count]:
            if isinstance(record, int):
                del self.disk[record]
            else:
                self.disk[record.id] = record
        del self._pending[:count]
        self.durable += count
        return self.durable

    def compact(self) -> None:
        """Copy the live items that are on disk, as the journal does to give back the space of others."""
        pending = {record for record in self._pending if isinstance(record, int)}
        self.disk = {id: item for id, item in self.disk.items() if id in self.items or id in pending}

    def crash(self) -> CrashStore:
        """A new journal with the items on disk."""
        return CrashStore(self.disk, self.position)
