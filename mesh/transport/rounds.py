"""A queue in which sources take turns, such as networks: one item of each, so that no source waits behind the many of
another one.

It knows keys and items: never what they are. What always holds: the items of one key leave in the order in which they
came; between two items of a key every other key that waits has its turn.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
class Rounds(Generic[T]):
    """``len`` counts items; a key is a text that names the source."""

    __slots__ = ("_count", "_keys")

    def __init__(self) -> None:
        self._count = 0
        self._keys: OrderedDict[str, deque[T]] = OrderedDict()  # the next key first

    def __len__(self) -> int:
        return self._count

    def add(self, key: str, item: T) -> None:
        """An item comes."""
        self._keys.setdefault(key, deque()).append(item)
        self._count += 1

    def next(self) -> T:
        """The item that ``take`` removes."""
        return next(iter(self._keys.values()))[0]

    def take(self) -> T:
        """The next item leaves."""
        key, items = next(iter(self._keys.items()))
        item = items.popleft()
        self._count -= 1
        if items:
            self._keys.move_to_end(key)
        else:
            del self._keys[key]
        return item

    def remove(self, key: str, item: T) -> None:
        """An item leaves before its turn, unless it has left already."""
        items = self._keys.get(key)
        if items is None or item not in items:
            return
        items.remove(item)
        self._count -= 1
        if not items:
            del self._keys[key]

    @property
    def keys(self) -> int:
        """How many keys have items."""
        return len(self._keys)

    def of(self, key: str) -> int:
        """How many items of a key wait."""
        items = self._keys.get(key)
        return 0 if items is None else len(items)

    def most(self) -> int:
        """How many wait of the key that has the most."""
        return max(map(len, self._keys.values()), default=0)
