"""A prepared change takes effect as a whole, or is undone as a whole."""

from __future__ import annotations

import logging

import pytest

from mesh.node.prepared import Prepared


def _change(said: list[str], *names: str) -> Prepared:
    prepared = Prepared()
    for name in names:
        prepared.add(lambda name=name: said.append(f"commit {name}"), lambda name=name: said.append(f"undo {name}"))
    return prepared


def test_a_commit_reaches_each_part_in_order_and_undoes_nothing() -> None:
    said: list[str] = []
    prepared = _change(said, "a", "b")
    prepared.commit()
    prepared.withdraw()
    prepared.commit()
    assert said == ["commit a", "commit b"]


def test_a_withdrawal_undoes_the_parts_in_reverse_order_and_commits_nothing() -> None:
    said: list[str] = []
    prepared = _change(said, "a", "b")
    prepared.withdraw()
    prepared.commit()
    prepared.withdraw()
    assert said == ["undo b", "undo a"]


def test_a_part_may_have_parts_of_its_own() -> None:
    said: list[str] = []
    whole = _change(said, "a")
    whole.include(_change(said, "b", "c"))
    whole.commit()
    assert said == ["commit a", "commit b", "commit c"]


def test_an_error_in_one_part_is_logged_and_keeps_no_other_part_from_its_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said: list[str] = []
    prepared = Prepared()
    prepared.add(lambda: [][0])
    prepared.include(_change(said, "b"))
    with caplog.at_level(logging.ERROR):
        assert prepared.commit() == "IndexError('list index out of range')"
    assert said == ["commit b"]
    assert "did not take effect in one part" in caplog.text


def test_the_first_error_of_a_commit_is_told_through_all_parts() -> None:
    def lost() -> None:
        raise OSError(98, "the address is lost")

    inner, prepared = Prepared(), Prepared()
    inner.add(lost)
    inner.add(lambda: [][0])
    prepared.include(_change([], "a"))
    prepared.include(inner)
    assert prepared.commit() == "the address is lost"
    assert _change([], "b").commit() == ""


def test_a_change_is_undone_if_a_later_part_cannot_be_prepared() -> None:
    said: list[str] = []
    with pytest.raises(OSError, match="in use"), _change(said, "a", "b"):
        raise OSError("in use")
    with _change(said, "c") as prepared:
        pass
    prepared.commit()
    assert said == ["undo b", "undo a", "commit c"]
