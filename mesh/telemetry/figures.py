"""The figures of a node: what ``status`` shows and Prometheus reads.

It knows names, kinds and where a value comes from; never what it means. The hot rooms count for themselves in plain
integers, and a figure reads them when somebody looks, so counting costs nothing more than an addition. What always
holds: the number of series is bounded; names and labels are valid in Prometheus' text format 0.0.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, final

# Labels of a figure name a node, a link or a kind, never a vehicle: a node with 1,000 series has a label with too
# many values.
MAX_SERIES: Final = 1000

COUNTER: Final = "counter"
GAUGE: Final = "gauge"

_FIRST: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_FURTHER: Final = _FIRST | frozenset("0123456789")


@final
class Counter:
    """Something that only grows. For rooms that have no integer of their own to show."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int = 1) -> None:
        """Count ``amount`` more."""
        self.value += amount


@final
class _Family:
    """All series of one name: ``series`` maps their labels, as they are written in the text format, to their source."""

    __slots__ = ("about", "kind", "series")

    def __init__(self, kind: str, about: str) -> None:
        self.kind = kind
        self.about = about
        self.series: dict[str, Callable[[], float]] = {}


@final
class Figures:
    """``common`` labels are carried by every series, such as the mesh and the node."""

    def __init__(self, common: Mapping[str, str]) -> None:
        self._common = dict(common)
        self._families: dict[str, _Family] = {}
        self._count = 0

    def counter(self, name: str, about: str, labels: Mapping[str, str] | None = None) -> Counter:
        """A new counter. ``name`` ends in ``_total``; ``about`` is one line for people."""
        counter = Counter()
        self.counts(name, about, lambda: counter.value, labels)
        return counter

    def counts(
        self, name: str, about: str, read: Callable[[], float], labels: Mapping[str, str] | None = None
    ) -> None:
        """Show a number that only grows and is kept elsewhere."""
        if not name.endswith("_total"):
            raise ValueError(f"the name of a counter ends in _total, as {name}_total does")
        self._add(name, COUNTER, about, read, labels)

    def gauge(self, name: str, about: str, read: Callable[[], float], labels: Mapping[str, str] | None = None) -> None:
        """Show a number that goes up and down."""
        self._add(name, GAUGE, about, read, labels)

    def remove(self, name: str, labels: Mapping[str, str]) -> None:
        """Stop showing a series, as of a link that is gone for good; nothing happens if it is not shown."""
        family = self._families.get(name)
        if family is not None and family.series.pop(_labels(self._common, labels), None) is not None:
            self._count -= 1
            if not family.series:
                del self._families[name]

    def read(self) -> dict[str, float]:
        """All values now, by name and own labels as in ``mesh_link_up{edge="edge-1"}``; the common labels are left
        out.
        """
        hidden = _labels(self._common, {})
        values: dict[str, float] = {}
        for name, family in self._families.items():
            for labels, source in family.series.items():
                own = labels.removeprefix(hidden).removeprefix(",")
                values[f"{name}{{{own}}}" if own else name] = source()
        return values

    def exposition(self) -> str:
        """All values now in Prometheus' text format 0.0.4."""
        lines: list[str] = []
        for name, family in sorted(self._families.items()):
            about = family.about.replace("\\", "\\\\").replace("\n", "\\n")
            lines.append(f"# HELP {name} {about}")
            lines.append(f"# TYPE {name} {family.kind}")
            for labels, source in family.series.items():
                lines.append(f"{name}{{{labels}}} {_number(source())}" if labels else f"{name} {_number(source())}")
        return "\n".join(lines) + "\n" if lines else ""

    def _add(
        self, name: str, kind: str, about: str, read: Callable[[], float], labels: Mapping[str, str] | None
    ) -> None:
        if not _valid(name):
            raise ValueError(f"{name!r} is no name of a figure: letters, digits and underscores, no digit first")
        family = self._families.get(name) or _Family(kind, about)
        if family.kind != kind:
            raise ValueError(f"the figure {name} is a {family.kind} already and cannot be a {kind} too")
        key = _labels(self._common, labels or {})
        if key in family.series:
            raise ValueError(f"the figure {name}{{{key}}} exists already")
        if self._count >= MAX_SERIES:
            raise ValueError(f"a node shows at most {MAX_SERIES} figures; {name}{{{key}}} is one too many")
        self._families[name] = family
        family.series[key] = read
        self._count += 1


def _valid(name: str) -> bool:
    return bool(name) and name[0] in _FIRST and _FURTHER.issuperset(name)


def _labels(common: Mapping[str, str], own: Mapping[str, str]) -> str:
    """The text between the braces: the common labels first, then the own ones in the order of their names."""
    pairs = [*common.items(), *sorted(own.items())]
    for name, _ in pairs:
        if not _valid(name) or name.startswith("__"):  # two underscores are Prometheus' own
            raise ValueError(f"{name!r} is no name of a label")
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
