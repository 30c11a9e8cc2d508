"""Instruments: their names, kinds and units."""

from __future__ import annotations

import pytest

from mesh.figures.instrument import Distribution, Instrument, Kind, Unit, counter, gauge, histogram


def test_valid_declaration_is_accepted() -> None:
    assert counter("mesh_sent_bytes_total", "Bytes sent.", unit="bytes").kind == "counter"
    assert gauge("mesh_link_up", "Whether it is up.", ("peer",)).labels == ("peer",)
    assert histogram("mesh_commit_seconds", "Time of a commit.").unit == "seconds"


WRONG: list[tuple[str, Kind, Unit, str, str]] = [
    ("messages_total", "counter", "", "Messages.", "is not mesh_"),
    ("mesh_Messages_total", "counter", "", "Messages.", "is not mesh_"),
    ("mesh_links-edge", "gauge", "", "Links.", "is not mesh_"),
    ("mesh_messages", "counter", "", "Messages.", "end in _total"),
    ("mesh_links_total", "gauge", "", "Links.", "end in _total"),
    ("mesh_spool", "gauge", "bytes", "Bytes.", "end in its unit, bytes"),
    ("mesh_sent_bytes_total", "counter", "", "Bytes.", "end in its unit, none"),
    ("mesh_wait_seconds", "histogram", "bytes", "Wait.", "end in its unit, bytes"),
    ("mesh_links", "gauge", "", "", "not one sentence"),
    ("mesh_links", "gauge", "", "Links", "not one sentence"),
    ("mesh_links", "gauge", "", "Links\nup.", "not one sentence"),
]


@pytest.mark.parametrize(("name", "kind", "unit", "help", "word"), WRONG)
def test_invalid_declaration_raises_value_error(name: str, kind: Kind, unit: Unit, help: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Instrument(name, kind, unit, help)


def test_count_of_a_distribution_is_the_sum_of_its_counts() -> None:
    assert Distribution((0.1, 0.2), (3, 4, 5), 1.5).count == 12
