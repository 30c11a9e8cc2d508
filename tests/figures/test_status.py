"""The figures of a status and its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest

from mesh.figures.instrument import Distribution, Label, counter, gauge, histogram
from mesh.figures.status import Status, by_series, instruments_of, readings

DROPPED = counter("mesh_dropped_total", "Dropped.", ("peer", "reason"))
COMMIT = histogram("mesh_commit_seconds", "Commits.")


@dataclass(frozen=True, slots=True)
class Link(Status):
    peer: Annotated[str, Label("peer")]
    up: Annotated[bool, gauge("mesh_up", "Whether it is up.", ("peer",))]
    dropped_full: Annotated[int, DROPPED.of(reason="full")]
    dropped_old: Annotated[int, DROPPED.of(reason="old")]
    error: str = "for people"


@dataclass(frozen=True, slots=True)
class Journal(Status):
    commit: Annotated[Distribution, COMMIT]


@dataclass(frozen=True, slots=True)
class Node(Status):
    started: Annotated[float, gauge("mesh_start_seconds", "The start.", unit="seconds")]
    links: tuple[Link, ...]
    journal: Journal | None


NODE = Node(2.5, (Link("a", True, 1, 2), Link("b", False, 3, 4)), Journal(Distribution((0.5,), (7, 1), 9.0)))


def test_readings_have_labels_and_values() -> None:
    found = [(one.instrument.name, one.labels, one.value) for one in readings(NODE)]
    assert found == [
        ("mesh_start_seconds", (), 2.5),
        ("mesh_up", ("a",), True),
        ("mesh_dropped_total", ("a", "full"), 1),
        ("mesh_dropped_total", ("a", "old"), 2),
        ("mesh_up", ("b",), False),
        ("mesh_dropped_total", ("b", "full"), 3),
        ("mesh_dropped_total", ("b", "old"), 4),
        ("mesh_commit_seconds", (), Distribution((0.5,), (7, 1), 9.0)),
    ]


def test_missing_parts_have_no_readings() -> None:
    assert [one.instrument.name for one in readings(Node(0.0, (), None))] == ["mesh_start_seconds"]


def test_by_series_returns_numbers_by_series_name() -> None:
    found = by_series(NODE)
    assert found == {
        "mesh_start_seconds": 2.5,
        'mesh_up{peer="a"}': 1,
        'mesh_dropped_total{peer="a",reason="full"}': 1,
        'mesh_dropped_total{peer="a",reason="old"}': 2,
        'mesh_up{peer="b"}': 0,
        'mesh_dropped_total{peer="b",reason="full"}': 3,
        'mesh_dropped_total{peer="b",reason="old"}': 4,
        "mesh_commit_seconds_count": 8,
        "mesh_commit_seconds_sum": 9.0,
    }
    assert type(found['mesh_up{peer="a"}']) is int


def test_instruments_of_a_class_are_found_without_an_instance() -> None:
    names = ["mesh_commit_seconds", "mesh_dropped_total", "mesh_start_seconds", "mesh_up"]
    assert [instrument.name for instrument in instruments_of(Node)] == names


def test_label_without_a_value_raises_type_error() -> None:
    @dataclass(frozen=True, slots=True)
    class Nameless(Status):
        up: Annotated[bool, gauge("mesh_up", "Whether it is up.", ("peer",))]

    with pytest.raises(TypeError, match="mesh_up gets no value"):
        instruments_of(Nameless)


def test_two_instruments_with_one_name_raise_type_error() -> None:
    @dataclass(frozen=True, slots=True)
    class Twice(Status):
        one: Annotated[int, gauge("mesh_links", "One.")]
        two: Annotated[int, gauge("mesh_links", "Two.")]

    with pytest.raises(TypeError, match="mesh_links is declared twice"):
        instruments_of(Twice)


def test_histogram_in_a_field_of_another_type_raises_type_error() -> None:
    @dataclass(frozen=True, slots=True)
    class Wrong(Status):
        commit: Annotated[int, COMMIT]

    with pytest.raises(TypeError, match="is a Distribution"):
        instruments_of(Wrong)
