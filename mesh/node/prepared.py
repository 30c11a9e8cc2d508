"""Prepared changes of a node: what its parts do when the settings of a revision take effect, or do not.

It knows functions of parts: never what they change. What always holds:

- A change takes effect in one turn of the loop, or not at all. ``commit`` and ``withdraw`` do not wait, and each change
  ends with exactly one of them.
- Parts are committed in the order in which they were added, and withdrawn in the reverse order.
- An error in the function of one part keeps no other part from its own; it is logged, as it is a fault of the mesh.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self, final

log = logging.getLogger(__name__)


@final
class Prepared:
    """Collects the functions of the parts of a node. Those for ``commit`` may raise nothing. As a context manager it
    withdraws the change if a later part cannot be prepared."""

    __slots__ = ("_commits", "_ended", "_withdrawals")

    def __init__(self) -> None:
        self._commits: list[Callable[[], str | None]] = []
        self._withdrawals: list[Callable[[], None]] = []
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.withdraw()

    def add(self, commit: Callable[[], str | None] | None = None, withdraw: Callable[[], None] | None = None) -> None:
        """Add one part: what puts its change in force, and what undoes its preparation."""
        if commit is not None:
            self._commits.append(commit)
        if withdraw is not None:
            self._withdrawals.append(withdraw)

    def include(self, other: Prepared) -> None:
        """Add the change of a part that has parts of its own."""
        self.add(other.commit, other.withdraw)

    def commit(self) -> str:
        """Put the whole change in force. Returns in one sentence what went wrong in a part; empty if nothing did."""
        return _call(self._commits, "a change of the settings did not take effect in one part") if self._end() else ""

    def withdraw(self) -> None:
        """Close what the preparation opened. A change that is in force stays so."""
        if self._end():
            _call(reversed(self._withdrawals), "a prepared change of the settings was not undone in one part")

    def _end(self) -> bool:
        """Whether the change has not ended before."""
        ended, self._ended = self._ended, True
        return not ended


def _call(functions: Iterable[Callable[[], str | None]], fault: str) -> str:
    """Call them all; returns the first error, which a function raised or returned."""
    first = ""
    for function in functions:
        try:
            error = function()
        except Exception as raised:
            log.exception(fault)
            error = (isinstance(raised, OSError) and raised.strerror) or repr(raised)
        first = first or error or ""
    return first
