"""A journal in memory: the store of a broker."""

from __future__ import annotations

from mesh.session.store import Item, Store


class Stored:
    """A journal item with its body."""

    def __init__(self, id: int, kind: int, owner: int, meta: bytes, body: bytes) -> None:
        self.id = id
        self.kind = kind
        self.owner = owner
        self.meta = meta
        self.body = body

    def item(self) -> Item:
        return Item(self.id, self.kind, self.owner, self.meta)


class MemoryStore(Store):
    """A journal whose disk is a dictionary. ``commit`` makes everything durable; ``crash`` opens the disk's content."""

    def __init__(self, items: dict[int, Stored] | None = None, position: int = 0) -> None:
        self.items = dict(items or {})
        super().__init__(position)
        self.disk = dict(self.items)
        self.durable = position

    def append(self, kind: int, owner: int, meta: bytes, body: bytes) -> int:
        self.position += 1
        self.items[self.position] = Stored(self.position, kind, owner, meta, body)
        return self.position

    def drop(self, id: int) -> None:
        del self.items[id]
        self.position += 1

    def size(self, id: int) -> int:
        item = self.items[id]
        return 42 + len(item.meta) + len(item.body)

    def read(self, id: int) -> bytes:
        return self.items[id].body

    def commit(self) -> int:
        self.disk = dict(self.items)
        self.durable = self.position
        return self.durable

    def crash(self) -> MemoryStore:
        return MemoryStore(self.disk, self.durable)

    def live(self) -> list[Item]:
        return [self.items[id].item() for id in sorted(self.items)]


class FaultyStore(MemoryStore):
    """Its next append raises if ``faulty`` is set."""

    faulty = False

    def append(self, kind: int, owner: int, meta: bytes, body: bytes) -> int:
        if self.faulty:
            self.faulty = False
            raise ValueError("a fault of this program")
        return super().append(kind, owner, meta, body)


class CountingStore(MemoryStore):
    """Counts the calls since the last turn."""

    calls = 0

    def append(self, kind: int, owner: int, meta: bytes, body: bytes) -> int:
        self.calls += 1
        return super().append(kind, owner, meta, body)

    def drop(self, id: int) -> None:
        self.calls += 1
        super().drop(id)
