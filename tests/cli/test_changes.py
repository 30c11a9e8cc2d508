"""How the changes of a topology look: on a terminal, and in a pipe."""

from __future__ import annotations

import re
import sys

import pytest

from mesh.cli.changes import lines, summary
from mesh.topology.change import Change, Kind

FOUND = (
    Change(
        path="topics.vehicle", kind=Kind.REFUSED, what="vehicles/{vehicle}/# -> cars/{vehicle}/#",
        why="they belong to it",
        instead="keep the template, or start a new mesh from a new file with a name and a data folder of its own",
    ),
    Change(path="pools.legacy", kind=Kind.LIVE, what="added", why="for new vehicles"),
    Change(path="pools.standard.edges.edge-2", kind=Kind.LIVE, what="removed", nodes=("edge-2",)),
    Change(path="map.cache", kind=Kind.ROLLING, what="200000 -> 5000", why="it has one size", nodes=("core", "door")),
    Change(path="cores.core.listen", kind=Kind.LIVE, what="mqtt://127.0.0.1:1885 added"),
)  # fmt: skip
PIPE = """\
  + live     pools.legacy                 added
             for new vehicles
  - live     pools.standard.edges.edge-2  removed
  + live     cores.core.listen            mqtt://127.0.0.1:1885 added
  ~ rolling  map.cache                    200000 -> 5000
             restarts core, door: it has one size
  ~ refused  topics.vehicle               vehicles/{vehicle}/# -> cars/{vehicle}/#
             they belong to it
             instead: keep the template, or start a new mesh from a new file with a name and a data folder of its own"""
COLOUR = re.compile(r"\x1b\[\d+m")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_the_changes_are_aligned_and_those_of_a_kind_are_together() -> None:
    assert "\n".join(lines(FOUND)) == PIPE


def test_no_changes_have_no_lines() -> None:
    assert lines(()) == []


@pytest.mark.usefixtures("terminal")
def test_a_terminal_has_colours_and_no_sentence_is_wider_than_it() -> None:
    shown = lines(FOUND)
    assert shown[0].startswith("  \x1b[32m+ live    \x1b[0m pools.legacy ")
    assert shown[3].startswith("  \x1b[32m+ live    \x1b[0m cores.core.listen ")
    assert any(line.startswith("  \x1b[31m~ refused \x1b[0m topics.vehicle") for line in shown)
    assert max(len(COLOUR.sub("", line)) for line in shown if "instead" in line or "folder" in line) <= 80
    assert " ".join("\n".join(shown).split()).count(FOUND[0].instead) == 1


@pytest.mark.usefixtures("terminal")
def test_a_terminal_without_colours_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in "\n".join([*lines(FOUND), summary(FOUND, True)])


def test_the_summary_says_what_up_does() -> None:
    assert summary(FOUND, True) == "3 live, 1 rolling, 1 refused: 'mesh up' changes nothing while one is refused"
    assert summary(FOUND[1:], True) == "3 live, 1 rolling: 'mesh up' makes these changes"
    assert summary(FOUND[1:3], False) == "2 live: 'mesh up' starts the mesh with these changes"
