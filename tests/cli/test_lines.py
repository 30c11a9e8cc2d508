"""What ``mesh up`` and ``mesh down`` show while they wait."""

from __future__ import annotations

import pytest

from mesh.cli import lines
from mesh.cli.lines import Progress, Waiting
from mesh.cluster.status import MeshStatus, NodeRow
from tests.fakes.clock import FakeClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock(0.0)
    monkeypatch.setattr(lines.time, "monotonic", clock)
    return clock


def starting(detail: str) -> MeshStatus:
    rows = (NodeRow("edge-1", "edge", "ready"), NodeRow("core", "core", "starting", detail=detail))
    return MeshStatus("m", "starting", "", "", "", "", (), 0, rows)


def test_up_names_what_it_waits_for(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress(starting(""))
    assert "core             starting" in capsys.readouterr().err
    clock.now = 1.0
    progress(starting(""))
    assert capsys.readouterr().err == ""
    clock.now = 16.0
    asks = "Ray has not started its process for 16 s, which asks for {'gpu': 1.0}"
    progress(starting(asks))
    assert capsys.readouterr().err == f"  16.0 s  waits for core ({asks})\n"


def test_the_connections_that_a_front_door_still_has_are_shown(
    clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress()
    for second, left in ((0.0, 900), (5.0, 400)):
        clock.now = second
        row = NodeRow("door", "door", "stopping", connections=left)
        progress(MeshStatus("m", "starting", "", "", "", "", (), 0, (row,)))
    assert capsys.readouterr().err.splitlines()[-1] == "   5.0 s  waits for door (stopping, 400 connections left)"


def test_the_same_is_said_again_after_a_while(clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
    waiting = Waiting()
    said = []
    for second in range(40):
        clock.now = float(second)
        waiting("waits for Ray")
        said += capsys.readouterr().err.splitlines()
    assert said == ["   3.0 s  waits for Ray", "  19.0 s  waits for Ray", "  35.0 s  waits for Ray"]
