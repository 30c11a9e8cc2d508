"""The mistakes in a topology file: all at once, each with its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

LATER: Final = "comes with a later release"


@final
@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake.

    ``line`` and ``column`` count from 1; ``key`` is a path such as ``pools[0].name``; ``what`` says what is wrong and
    what would be right.
    """

    file: str
    line: int
    column: int
    key: str
    what: str

    def __str__(self) -> str:
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}:{self.column}: {key}{self.what}"


@final
class TopologyErrors(Exception):
    """At least one mistake, in the order of the file. The text has one line for each."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__(mistakes)  # the arguments of the constructor, so that it can be pickled
        self.mistakes = sorted(mistakes, key=lambda mistake: (mistake.line, mistake.column))

    def __str__(self) -> str:
        return "\n".join(map(str, self.mistakes))
