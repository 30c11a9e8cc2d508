"""A queue that takes little memory while it is empty. Most queues of most sessions are empty at most times.

An empty ``collections.deque`` takes 600 bytes, an empty ``Fifo`` 140, and each connected vehicle has three: that is
1.3 KB of the 5 KB that it may take. An item in the middle is taken out by its *place*, a number that it keeps while it
is in the queue; so a long queue can be searched and thinned out in portions while others use it. What always holds: the
queue keeps no reference to an item that was taken out; the oldest item is at the head, never a gap; taking out takes
constant time on average, whatever the length of the queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Generic, TypeVar, cast, final

from mypy_extensions import i64

T = TypeVar("T")

# Up to this many free places stay before the head: then moving the rest costs less than one step per item taken out.
_SLACK: Final = 32


@final
class Fifo(Generic[T]):
    """First in, first out. ``first`` and ``popleft`` raise ``IndexError`` when the queue is empty."""

    __slots__ = ("_base", "_gaps", "_head", "_items")

    def __init__(self, items: list[T] | None = None) -> None:
        self._items: list[T] = [] if items is None else items
        self._head = 0  # index of the oldest item; the places before it are free
        self._gaps: i64 = 0  # free places behind the head
        self._base: i64 = 0  # the place of index 0

    def __len__(self) -> int:
        if self._gaps:  # each message asks a dozen times
            return len(self._items) - self._head - self._gaps
        return len(self._items) - self._head

    def __bool__(self) -> bool:
        return len(self._items) > self._head

    def __iter__(self) -> Iterator[T]:
        """The present items, oldest first."""
        items = self._items[self._head :]
        return iter([item for item in items if item is not None] if self._gaps else items)

    def append(self, item: T) -> None:
        """Add an item at the end."""
        self._items.append(item)

    def first(self) -> T:
        """The oldest item."""
        return self._items[self._head]

    def popleft(self) -> T:
        """Take out the oldest item."""
        items, head = self._items, self._head
        item = items[head]
        items[head] = cast(T, None)
        head += 1
        if self._gaps:
            head = self._skip(head)
        if head == len(items):
            self._base += head
            items.clear()
            head = 0
        elif head > _SLACK and head * 2 > len(items):
            self._base += head
            del items[:head]
            head = 0
        self._head = head
        return item

    def _skip(self, head: int) -> int:
        """The index of the next item from ``head`` on."""
        items = self._items
        while head < len(items) and items[head] is None:
            head += 1
            self._gaps -= 1
        return head

    def begin(self) -> int:
        """The place of the oldest item."""
        return self._base + self._head

    def end(self) -> int:
        """The place behind the newest item."""
        return self._base + len(self._items)

    def at(self, place: int) -> T | None:
        """The item at a place; ``None`` if it was taken out."""
        index = place - self._base
        return self._items[index] if self._head <= index < len(self._items) else None

    def remove(self, place: int) -> None:
        """Take out the item at a place."""
        index = place - self._base
        if index == self._head:
            self.popleft()
            return
        items = self._items
        items[index] = cast(T, None)
        self._gaps += 1
        while items[-1] is None:  # the head is an item, so this ends
            items.pop()
            self._gaps -= 1

    def tidy(self) -> None:
        """Close the gaps, if they take more than half of the queue: places grow, so one who goes through the queue
        may see an item twice and misses none. Call it after ``remove``."""
        if self._gaps > _SLACK and self._gaps * 2 > len(self._items):
            end = self.end()
            self._items = [item for item in self._items[self._head :] if item is not None]
            self._base = end - len(self._items)
            self._head = 0
            self._gaps = 0

    def prepend(self, items: list[T]) -> None:
        """Add items before the oldest, in their order."""
        self._base += self._head - len(items)
        self._items[: self._head] = items
        self._head = 0

    def clear(self) -> None:
        """Remove all items."""
        self._base += len(self._items)
        self._items.clear()
        self._head = 0
        self._gaps = 0
