"""Letters in the order of their journal items, of which any can be taken out.

It knows items and their order, never their content. What always holds: adding, finding or taking out a letter costs a
binary search and one block, however many letters there are; no reference to a letter that was taken out is kept.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final, final

from mesh.broker.letter import Letter

_BLOCK: Final = 512  # letters: to take one out of a list of this length takes about a microsecond


@final
class _Block:
    """Letters from item ``start`` on, up to the next block."""

    __slots__ = ("items", "letters", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.items: list[int] = []
        self.letters: list[Letter] = []


@final
class LetterQueue:
    """``bytes`` is the sum of the sizes."""

    __slots__ = ("_blocks", "_count", "_starts", "bytes")

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._starts: list[int] = []
        self._count = 0
        self.bytes = 0

    def __len__(self) -> int:
        return self._count

    def append(self, letter: Letter) -> None:
        """Add a letter whose item is higher than all others."""
        if not self._blocks or len(self._blocks[-1].items) >= _BLOCK:
            self._blocks.append(_Block(letter.item))
            self._starts.append(letter.item)
        block = self._blocks[-1]
        block.items.append(letter.item)
        block.letters.append(letter)
        self._count += 1
        self.bytes += letter.size

    def get(self, item: int) -> Letter | None:
        """The letter of an item."""
        at = bisect_right(self._starts, item) - 1
        if at < 0:
            return None
        block = self._blocks[at]
        index = bisect_left(block.items, item)
        return block.letters[index] if index < len(block.items) and block.items[index] == item else None

    def remove(self, letter: Letter) -> None:
        """Take out a letter, which must be present."""
        at = bisect_right(self._starts, letter.item) - 1
        block = self._blocks[at]
        index = bisect_left(block.items, letter.item)
        del block.items[index]
        del block.letters[index]
        self._count -= 1
        self.bytes -= letter.size
        if not block.items:
            del self._blocks[at]
            del self._starts[at]

    def first(self) -> Letter | None:
        """The oldest letter."""
        return self._blocks[0].letters[0] if self._blocks else None

    def after(self, item: int, most: int) -> list[Letter]:
        """Up to ``most`` letters that follow ``item``, in order."""
        found: list[Letter] = []
        at = max(0, bisect_right(self._starts, item) - 1)
        while at < len(self._blocks) and len(found) < most:
            block = self._blocks[at]
            index = bisect_right(block.items, item)
            found += block.letters[index : index + most - len(found)]
            at += 1
        return found
