"""Statuses: the state of a part of a node at one moment, as immutable values.

It knows how to find the figures of a status by the types of its fields; it must never know what they mean. A status is
a frozen dataclass. A field is one of four things:

* a figure, ``Annotated[int, counter(…)]``: also ``float``, ``bool`` and, for histograms, ``Distribution``;
* a label, ``Annotated[str, Label(…)]``, of every figure in this status and in its parts;
* a part: another status, a tuple of them, or ``None`` where there is none;
* any other value, for people and for the code that reads this type.

What always holds: a name has one instrument; every label of an instrument has a value in every series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Final, TypeGuard, Union, final, get_args, get_origin, get_type_hints

from mesh.figures.instrument import HISTOGRAM, Distribution, Instrument, Label, Series

Value = int | float | Distribution

_NO_LABELS: Final[Mapping[str, str]] = {}


class Status:
    """The base of every status."""

    __slots__ = ()


@final
@dataclass(frozen=True, slots=True)
class Reading:
    """One series at one moment. ``labels`` are the values of ``instrument.labels``, in that order."""

    instrument: Instrument
    labels: tuple[str, ...]
    value: Value


@final
@dataclass(frozen=True, slots=True)
class _Form:
    """The fields of a class by use: each name with its label, instrument or part."""

    labels: tuple[tuple[str, str], ...]
    figures: tuple[tuple[str, Instrument, tuple[tuple[str, str], ...]], ...]
    parts: tuple[tuple[str, type[Status]], ...]


def readings(status: Status, labels: Mapping[str, str] = _NO_LABELS) -> Iterator[Reading]:
    """All figures of a status and its parts. ``labels`` are those of the status that it is a part of."""
    form = _form_of(type(status))
    if form.labels:
        labels = {**labels, **{label: getattr(status, field) for field, label in form.labels}}
    for field, instrument, own in form.figures:
        given = {**labels, **dict(own)} if own else labels
        yield Reading(instrument, tuple(given[label] for label in instrument.labels), getattr(status, field))
    for field, _ in form.parts:
        part: Status | tuple[Status, ...] | None = getattr(status, field)
        for one in part if isinstance(part, tuple) else (part,):
            if one is not None:
                yield from readings(one, labels)


def instruments_of(kind: type[Status]) -> tuple[Instrument, ...]:
    """All instruments of a status class and its parts, in the order of their names.

    Raises ``TypeError`` if two instruments have the same name, or if a label of an instrument has no value.
    """
    found: dict[str, Instrument] = {}
    for instrument, labels in _declared(kind, frozenset()):
        if found.setdefault(instrument.name, instrument) != instrument:
            raise TypeError(f"{instrument.name} is declared twice")
        if not labels.issuperset(instrument.labels):
            raise TypeError(f"{kind.__name__}: {instrument.name} gets no value for a label of {instrument.labels}")
    return tuple(found[name] for name in sorted(found))


def by_series(status: Status) -> dict[str, float]:
    """The numbers of a status by series, in the notation of Prometheus: ``mesh_link_up{link="tier",peer="edge-1"}``.

    A histogram has only ``_count`` and ``_sum``, because people and small programs read these.
    """
    found: dict[str, float] = {}
    for reading in readings(status):
        instrument, value = reading.instrument, reading.value
        pairs = ",".join(f'{name}="{text}"' for name, text in zip(instrument.labels, reading.labels, strict=True))
        labels = f"{{{pairs}}}" if pairs else ""
        if isinstance(value, Distribution):
            found[f"{instrument.name}_count{labels}"] = value.count
            found[f"{instrument.name}_sum{labels}"] = value.total
        else:
            found[instrument.name + labels] = value if isinstance(value, float) else int(value)
    return found


def _declared(kind: type[Status], labels: frozenset[str]) -> Iterator[tuple[Instrument, frozenset[str]]]:
    form = _form_of(kind)
    labels = labels.union(label for _, label in form.labels)
    for _, instrument, own in form.figures:
        yield instrument, labels.union(name for name, _ in own)
    for _, part in form.parts:
        yield from _declared(part, labels)


_FORMS: Final[dict[type[Status], _Form]] = {}  # each class is inspected once


def _form_of(kind: type[Status]) -> _Form:
    form = _FORMS.get(kind)
    if form is None:
        form = _FORMS[kind] = _inspect(kind)
    return form


def _inspect(kind: type[Status]) -> _Form:
    assert is_dataclass(kind), f"{kind.__name__} is not a dataclass"
    hints = get_type_hints(kind, include_extras=True)
    labels: list[tuple[str, str]] = []
    figures: list[tuple[str, Instrument, tuple[tuple[str, str], ...]]] = []
    parts: list[tuple[str, type[Status]]] = []
    for field in fields(kind):
        hint = hints[field.name]
        mark = get_args(hint)[1] if get_origin(hint) is Annotated else None
        if isinstance(mark, Label):
            labels.append((field.name, mark.name))
        elif isinstance(mark, Instrument):
            _check(field.name, mark, hint)
            figures.append((field.name, mark, ()))
        elif isinstance(mark, Series):
            figures.append((field.name, mark.instrument, mark.labels))
        else:
            parts += [(field.name, part) for part in _parts_in(hint)]
    return _Form(tuple(labels), tuple(figures), tuple(parts))


def _check(field: str, instrument: Instrument, hint: object) -> None:
    if (instrument.kind == HISTOGRAM) != (get_args(hint)[0] is Distribution):
        found = f"{field}: {instrument.name} is a {instrument.kind}"
        raise TypeError(f"{found}; the field of a histogram, and no other, is a Distribution")


def _parts_in(hint: object) -> list[type[Status]]:
    """The status classes in the type of a field: the type itself, or those in a tuple or union."""
    if get_origin(hint) in (tuple, UnionType, Union):
        return [part for inner in get_args(hint) if inner not in (NoneType, Ellipsis) for part in _parts_in(inner)]
    return [hint] if _is_status(hint) else []


def _is_status(hint: object) -> TypeGuard[type[Status]]:
    return isinstance(hint, type) and issubclass(hint, Status)
