"""Instruments: the declaration of a figure. All outputs take its name, kind, unit, help and labels from it.

It knows the naming conventions of Prometheus; it must never know which code counts or reads. A figure is declared once,
in the type of the field that holds it (see ``status``):

    up: Annotated[bool, gauge("mesh_link_up", "Whether the link is up.", labels=("link", "peer"))]

What always holds: a name is a literal in the source and never built from data, so a node, a peer, a link, a listener or
a reason is a label; a counter's name ends in ``_total`` and no other name does; the name of a figure with a unit ends
in the unit (before ``_total``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, final

Kind = Literal["counter", "gauge", "histogram"]
Unit = Literal["", "seconds", "bytes"]

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"

_UNITS: Final = ("seconds", "bytes")
_TOTAL: Final = "_total"
_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")


@final
@dataclass(frozen=True, slots=True)
class Label:
    """Marks a text field of a status: its value is the label ``name`` of all figures of that status and its parts."""

    name: str


@final
@dataclass(frozen=True, slots=True)
class Instrument:
    """``labels`` are those of its series, in addition to the mesh and the node, which every series has. ``help`` is one
    sentence, different for each instrument. Raises ``ValueError`` for a name that breaks the conventions."""

    name: str
    kind: Kind
    unit: Unit
    help: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        name = self.name
        if not name.startswith("mesh_") or not _LETTERS.issuperset(name):
            raise ValueError(f"{name!r} is not mesh_ followed by lower-case letters, digits and underscores")
        if name.endswith(_TOTAL) != (self.kind == COUNTER):
            raise ValueError(f"{name} is a {self.kind}: names of counters, and only those, end in _total")
        stem = name.removesuffix(_TOTAL)
        unit = next((unit for unit in _UNITS if stem.endswith(f"_{unit}")), "")
        if unit != self.unit:
            raise ValueError(f"{name} does not end in its unit, {self.unit or 'none'}")
        if not self.help.endswith(".") or "\n" in self.help:
            raise ValueError(f"the help of {name} is not one sentence: one line that ends in a full stop")

    def of(self, **labels: str) -> Series:
        """The series of this instrument with these label values."""
        return Series(self, tuple(sorted(labels.items())))


@final
@dataclass(frozen=True, slots=True)
class Series:
    """One series of an instrument that several fields share. ``labels`` are pairs of name and value."""

    instrument: Instrument
    labels: tuple[tuple[str, str], ...]


@final
@dataclass(frozen=True, slots=True)
class Distribution:
    """The value of a histogram. ``counts[i]`` is the number of values up to ``bounds[i]`` and above the previous bound;
    the last count is that of the values above all bounds. ``total`` is the sum of all values."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)


def counter(name: str, help: str, labels: tuple[str, ...] = (), unit: Unit = "") -> Instrument:
    """A number that only increases, from 0 at the start of the process."""
    return Instrument(name, COUNTER, unit, help, labels)


def gauge(name: str, help: str, labels: tuple[str, ...] = (), unit: Unit = "") -> Instrument:
    """A number that increases and decreases."""
    return Instrument(name, GAUGE, unit, help, labels)


def histogram(name: str, help: str, labels: tuple[str, ...] = ()) -> Instrument:
    """A distribution of durations; the field holds a ``Distribution``."""
    return Instrument(name, HISTOGRAM, "seconds", help, labels)
