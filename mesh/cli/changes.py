"""The changes of a topology as lines for people, for ``mesh plan`` and ``mesh up``.

It knows the values of changes and the terminal. What always holds: a pipe or a file gets no colours and no line breaks
within a sentence; each change has one line with its sign, kind, path and values, and those of one kind are together.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from mesh.topology.change import ADDED, REMOVED, Change, Kind

_SIGNS: Final[Mapping[str, str]] = {ADDED: "+", REMOVED: "-"}
_COLOURS: Final[Mapping[Kind, str]] = {Kind.LIVE: "32", Kind.ROLLING: "33", Kind.REFUSED: "31"}  # green, yellow, red
_MARGIN: Final = " " * 13


def lines(found: Sequence[Change]) -> list[str]:
    """The changes: live ones first, refused ones last."""
    wide = max((len(change.path) for change in found), default=0)
    shown = []
    for kind in Kind:
        for change in (one for one in found if one.kind is kind):
            sign = _SIGNS.get(change.what.rpartition(" ")[2], "~")
            head = _painted(f"{sign} {kind.value:<8}", kind)
            shown.append(f"  {head} {change.path:<{wide}}  {change.what}")
            for text in _sentences(change):
                shown += _wrapped(text)
    return shown


def _sentences(change: Change) -> list[str]:
    """What is to be said besides the values."""
    restarts = f"restarts {', '.join(change.nodes)}: " if change.kind is Kind.ROLLING and change.nodes else ""
    instead = f"instead: {change.instead}" if change.instead else ""
    return [text for text in (restarts + change.why, instead) if text]


def summary(found: Sequence[Change], running: bool) -> str:
    """How many changes there are of each kind, and what 'mesh up' does."""
    counts = [(kind, sum(change.kind is kind for change in found)) for kind in Kind]
    text = ", ".join(_painted(f"{count} {kind.value}", kind) for kind, count in counts if count)
    if any(change.kind is Kind.REFUSED for change in found):
        return f"{text}: 'mesh up' changes nothing while one is refused"
    return f"{text}: 'mesh up' {'makes these changes' if running else 'starts the mesh with these changes'}"


def _wrapped(text: str) -> list[str]:
    if not sys.stdout.isatty():
        return [_MARGIN + text]
    width = max(60, shutil.get_terminal_size().columns)
    return textwrap.wrap(text, width, initial_indent=_MARGIN, subsequent_indent=_MARGIN, break_on_hyphens=False)


def _painted(text: str, kind: Kind) -> str:
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m"
