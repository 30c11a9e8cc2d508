"""Moments in time with what is due at them: a heap from which an entry can be removed.

It knows times and entries: never what they stand for. What always holds: an entry is in the heap exactly from ``add``
until ``remove`` or ``pop``; each call takes time that grows with the logarithm of the number of entries. (A heap that
keeps stale entries must be rebuilt now and then, and a rebuild of a million entries stops the loop for 0.3 s.)
"""

from __future__ import annotations

from typing import Generic, TypeVar, final

V = TypeVar("V")


@final
class Timer(Generic[V]):
    """``value`` is due at ``when``. ``place`` is the timer's index in the heap, -1 if it is in none."""

    __slots__ = ("order", "place", "value", "when")

    def __init__(self, when: float, order: int, value: V) -> None:
        self.when = when
        self.order = order
        self.value = value
        self.place = -1


@final
class Timers(Generic[V]):
    """A heap of timers. Of timers for the same moment the one that was added first comes first."""

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[Timer[V]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, when: float, value: V) -> Timer[V]:
        """``value`` is due at ``when``."""
        self._order += 1
        timer = Timer(when, self._order, value)
        self._heap.append(timer)
        self._rise(timer, len(self._heap) - 1)
        return timer

    def remove(self, timer: Timer[V]) -> None:
        """Remove a timer, if it has not been popped."""
        place = timer.place
        if place < 0:
            return
        timer.place = -1
        last = self._heap.pop()
        if last is not timer:
            self._rise(last, place)
            self._sink(last, last.place)

    def pop(self, now: float) -> Timer[V] | None:
        """Take out the earliest timer that is due at ``now``; ``None`` if none is."""
        if not self._heap or self._heap[0].when > now:
            return None
        timer = self._heap[0]
        self.remove(timer)
        return timer

    def _rise(self, timer: Timer[V], place: int) -> None:
        """Put ``timer`` at ``place``, or nearer to the top if it is due before those above."""
        heap = self._heap
        while place:
            above = heap[(place - 1) >> 1]
            if not _before(timer, above):
                break
            heap[place] = above
            above.place = place
            place = (place - 1) >> 1
        heap[place] = timer
        timer.place = place

    def _sink(self, timer: Timer[V], place: int) -> None:
        """Move ``timer`` from ``place`` away from the top while those below it are due before it."""
        heap = self._heap
        size = len(heap)
        while True:
            child = 2 * place + 1
            if child >= size:
                break
            if child + 1 < size and _before(heap[child + 1], heap[child]):
                child += 1
            below = heap[child]
            if not _before(below, timer):
                break
            heap[place] = below
            below.place = place
            place = child
        heap[place] = timer
        timer.place = place


def _before(one: Timer[V], other: Timer[V]) -> bool:
    return one.when < other.when or (one.when == other.when and one.order < other.order)
