"""Reads the keys of a mapping and notes every mistake, instead of stopping at the first one.

It knows trees and readers of texts. It must never know what the keys mean. What always holds: every reader here returns
a value of the right type, even for a wrong file; a file with at least one mistake is never used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeVar, final

from mesh.topology.mistakes import Mistake
from mesh.topology.tree import Mapping, Node, Scalar, Sequence
from mesh.topology.units import near

T = TypeVar("T")

# Further mistakes are not reported: such a file is no topology at all.
MAX_MISTAKES: Final = 100


@final
class Notes:
    """The mistakes found so far in one file."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.mistakes: list[Mistake] = []

    def add(self, node: Node, key: str, what: str) -> None:
        if len(self.mistakes) < MAX_MISTAKES:
            self.mistakes.append(Mistake(self.file, node.line, node.column, key, what))


@final
class Table:
    """A mapping whose keys are known. ``path`` is its place in the file, such as ``pools[0]``; empty for the whole
    file."""

    def __init__(self, notes: Notes, node: Mapping, path: str, keys: tuple[str, ...]) -> None:
        self.notes = notes
        self.node = node
        self.path = path
        self._values: dict[str, Node] = {}
        for key, value in node.entries:
            name = key.text or ""
            if name not in keys:
                notes.add(key, self.at(name), f"unknown key{near(name, keys) or '.'} Known keys: {', '.join(keys)}")
            elif name in self._values:
                notes.add(
                    key,
                    self.at(name),
                    f"duplicate key (first in line {self._values[name].line}); remove one",
                )
            else:
                self._values[name] = value

    def at(self, key: str) -> str:
        """The path of one of the keys."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        return key in self._values

    def node_of(self, key: str) -> Node:
        """The node of a key, or of the whole mapping if it has no such key: the place of a mistake."""
        return self._values.get(key, self.node)

    def wrong(self, key: str, what: str) -> None:
        self.notes.add(self.node_of(key), self.at(key), what)

    def value(self, key: str, read: Callable[[str], T], default: T, needed: str = "") -> T:
        """The value of a key, read by ``read``; ``default`` if the key is missing or wrong.

        A non-empty ``needed`` makes the key mandatory; it says what would be right.
        """
        node = self._values.get(key)
        if node is None:
            if needed:
                self.wrong(key, f"missing key; {needed}")
            return default
        return scalar(self.notes, node, self.at(key), read, default)

    def table(self, key: str, keys: tuple[str, ...]) -> Table | None:
        """The mapping under a key, or ``None`` if the key is missing or its value is not a mapping."""
        node = self._values.get(key)
        return None if node is None else table(self.notes, node, self.at(key), keys)

    def items(self, key: str, needed: str = "") -> Iterator[tuple[Node, str]]:
        """The items of a sequence with their paths."""
        node = self._values.get(key)
        if node is None:
            if needed:
                self.wrong(key, f"missing key; {needed}")
            return
        if not isinstance(node, Sequence):
            self.wrong(key, f"expected a list, found {kind(node)}; write [..., ...], or lines that begin with '- '")
            return
        if needed and not node.items:
            self.wrong(key, f"the list is empty; {needed}")
        for index, item in enumerate(node.items):
            yield item, f"{self.at(key)}[{index}]"

    def tables(self, key: str, keys: tuple[str, ...], needed: str = "") -> Iterator[Table]:
        """The mappings in a sequence."""
        for item, path in self.items(key, needed):
            found = table(self.notes, item, path, keys)
            if found is not None:
                yield found

    def values(self, key: str, read: Callable[[str], T], needed: str = "") -> tuple[T, ...]:
        """The scalars in a sequence, without the wrong ones."""
        found = (scalar(self.notes, item, path, read, None) for item, path in self.items(key, needed))
        return tuple(item for item in found if item is not None)

    def free(self, key: str, read: Callable[[str], T]) -> dict[str, T]:
        """A mapping whose keys the user chooses."""
        values = {name: scalar(self.notes, item, at, read, None) for name, item, at in self.entries(key)}
        return {name: value for name, value in values.items() if value is not None}

    def entries(self, key: str) -> Iterator[tuple[str, Node, str]]:
        """The entries of such a mapping, with their paths."""
        node = self._values.get(key)
        if node is None:
            return
        if not isinstance(node, Mapping):
            self.wrong(key, f"expected a mapping, found {kind(node)}; write keys with values, such as {{name: 1}}")
            return
        found = self.table(key, tuple(name.text or "" for name, _ in node.entries))
        if found is not None:
            for name, item in found._values.items():
                yield name, item, found.at(name)


def table(notes: Notes, node: Node, path: str, keys: tuple[str, ...]) -> Table | None:
    """A node as a mapping, or ``None`` and a note."""
    if isinstance(node, Mapping):
        return Table(notes, node, path, keys)
    notes.add(node, path, f"expected a mapping, found {kind(node)}. Known keys: {', '.join(keys)}")
    return None


def scalar(notes: Notes, node: Node, path: str, read: Callable[[str], T], default: T) -> T:
    """A node as one value, or ``default`` and a note."""
    if not isinstance(node, Scalar):
        notes.add(node, path, f"expected one value, found {kind(node)}")
        return default
    if node.text is None:
        notes.add(node, path, "the value is empty; write one or remove the key")
        return default
    try:
        return read(node.text)
    except ValueError as error:
        notes.add(node, path, str(error))
        return default


def kind(node: Node) -> str:
    """What a node is, for a message."""
    if isinstance(node, Scalar):
        return "nothing" if node.text is None else f"the value {node.text!r}"
    return "a list" if isinstance(node, Sequence) else "a mapping"
