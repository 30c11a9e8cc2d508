"""A YAML text as a tree of scalars, sequences and mappings with their lines and columns.

It knows YAML's syntax. It must never know topologies. What always holds: scalars stay the text of the file, so YAML's
implicit types (``no`` as a boolean, ``1:30`` as a number) do not apply; the tree is bounded in size and depth, and has
no shared parts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Union, final

import yaml

# Enough for some thousand edges; a larger file is probably the wrong file. Also bounds the time of the parser (about 4
# µs a byte).
MAX_BYTES: Final = 256 * 1024
# The format needs six levels.
MAX_DEPTH: Final = 16


class BrokenText(Exception):
    """The text is not YAML, or uses YAML that a topology does not support. ``line`` and ``column`` count from 1."""

    def __init__(self, what: str, line: int = 1, column: int = 1) -> None:
        super().__init__(what)
        self.what = what
        self.line = line
        self.column = column


@final
@dataclass(slots=True)
class Scalar:
    """``text`` is ``None`` for an empty value and for a plain ``null`` or ``~``."""

    line: int
    column: int
    text: str | None


@final
@dataclass(slots=True)
class Sequence:
    line: int
    column: int
    items: list[Node] = field(default_factory=list)


@final
@dataclass(slots=True)
class Mapping:
    """Entries in the order of the file; a key may occur twice."""

    line: int
    column: int
    entries: list[tuple[Scalar, Node]] = field(default_factory=list)


Node = Union[Scalar, Sequence, Mapping]


def parse(data: bytes) -> Node | None:
    """The one document in ``data``, or ``None`` for an empty one. Raises ``BrokenText``."""
    if len(data) > MAX_BYTES:
        raise BrokenText(f"the file has {len(data)} bytes; a topology has at most {MAX_BYTES}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BrokenText("the file is not UTF-8 text", line) from None
    try:
        return _build(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"this is not YAML: {error.problem or error.context}"
        if mark is None:
            raise BrokenText(what) from None
        raise BrokenText(what, mark.line + 1, mark.column + 1) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BrokenText(
            f"this is not YAML: the character U+{ord(text[error.position]):04X} is not allowed", line
        ) from None


def _build(text: str) -> Node | None:
    """Builds the tree from the parser's events, with an explicit stack instead of recursion."""
    root: Node | None = None
    documents = 0
    stack: list[Sequence | Mapping] = []
    keys: list[Scalar | None] = []  # for each level of the stack: the key whose value comes next
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line, column = _place(event)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise BrokenText("a second document begins here; a topology file holds one", line, column)
            continue
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            stack.pop()
            keys.pop()
            continue
        node: Node
        if isinstance(event, yaml.AliasEvent):
            raise BrokenText(f"the alias *{event.anchor} is not supported; repeat the value itself", line, column)
        elif isinstance(event, yaml.ScalarEvent):
            node = Scalar(line, column, _text(event))
        elif isinstance(event, yaml.MappingStartEvent):
            node = Mapping(line, column)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Sequence(line, column)
        else:
            continue
        if event.tag is not None and event.tag != "!":  # the parser gives quoted scalars the tag "!"
            raise BrokenText(f"the tag {event.tag} is not supported; remove it", line, column)
        if not stack:
            root = node
        else:
            _attach(stack[-1], keys, node)
        if not isinstance(node, Scalar):
            if len(stack) == MAX_DEPTH:
                raise BrokenText(f"nested deeper than {MAX_DEPTH} levels; a topology has at most six", line, column)
            stack.append(node)
            keys.append(None)
    return root


def _place(event: yaml.Event) -> tuple[int, int]:
    """Line and column, counted from 1."""
    mark = event.start_mark
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _attach(parent: Sequence | Mapping, keys: list[Scalar | None], node: Node) -> None:
    if isinstance(parent, Sequence):
        parent.items.append(node)
        return
    key = keys[-1]
    if key is not None:
        parent.entries.append((key, node))
        keys[-1] = None
    elif isinstance(node, Scalar) and node.text is not None:
        keys[-1] = node
    else:
        raise BrokenText("a key must be a plain word, not a list, a mapping or nothing", node.line, node.column)


def _text(event: yaml.ScalarEvent) -> str | None:
    plain = event.style is None
    return None if plain and event.value in ("", "~", "null") else str(event.value)
