"""Finds the retained messages for a subscription, in portions, in the order of their journal items.

It knows the tree of retained topics and the numbers of journal items: never sessions or messages. What always holds:
the work of one call is bounded, whatever the filter and the number of topics; a topic that was replaced or removed
after the search began may be in the result, and the reader of the result skips it (its item is above ``until``, or
gone).
"""

from __future__ import annotations

import heapq
from typing import Final, final

from mesh.wire.tree import TopicNode, TopicTree

# Nodes that are visited at a time, and sorted at a time: about half a millisecond.
_PORTION: Final = 1024


@final
class Search:
    """The topics that ``filter`` matches and whose items are after ``after`` and up to ``until``. When ``done`` is set,
    ``found`` has their nodes, the oldest item first."""

    __slots__ = ("_after", "_heads", "_runs", "_until", "_walk", "done", "found")

    def __init__(self, tree: TopicTree[int], filter: str, after: int, until: int) -> None:
        self._walk = tree.walk(filter)
        self._after = after
        self._until = until
        # Sorted portions, each with its oldest item last, and a heap of (oldest item of a portion, its index).
        self._runs: list[list[TopicNode[int]]] = []
        self._heads: list[tuple[int, int]] | None = None
        self.found: list[TopicNode[int]] = []
        self.done = False

    def run(self, steps: int) -> int:
        """Do about ``steps`` steps of work; returns how many were done, at least one."""
        used = 0
        while used < steps and not self._walk.done():
            used += self._walk.run(min(_PORTION, steps - used))
            found = self._walk.found
            if len(found) >= _PORTION or self._walk.done():
                self._walk.found = []
                used += self._add_run(found)
        if self._walk.done() and used < steps:
            used += self._merge(steps - used)
        return max(used, 1)

    def _add_run(self, found: list[TopicNode[int]]) -> int:
        items = [(node.value, index) for index, node in enumerate(found) if self._is_due(node)]
        items.sort(reverse=True)
        if items:
            self._runs.append([found[index] for _, index in items])
        return len(found)

    def _is_due(self, node: TopicNode[int]) -> bool:
        item = node.value
        return item is not None and self._after < item <= self._until

    def _merge(self, steps: int) -> int:
        if len(self._runs) == 1:  # nearly always
            self.found = self._runs.pop()
            self.found.reverse()
            self.done = True
            return 1
        heads = self._heads
        if heads is None:
            heads = self._heads = []
            for index in range(len(self._runs)):
                self._advance(heads, index)
        used = 0
        while heads and used < steps:
            used += 1
            index = heapq.heappop(heads)[1]
            self.found.append(self._runs[index].pop())
            self._advance(heads, index)
        if not heads:
            self._runs.clear()
            self.done = True
        return used

    def _advance(self, heads: list[tuple[int, int]], index: int) -> None:
        """Put the oldest node of a portion that is still due into the heap."""
        run = self._runs[index]
        while run:
            item = run[-1].value
            if item is not None and item <= self._until:
                heapq.heappush(heads, (item, index))
                return
            run.pop()  # replaced or removed meanwhile
