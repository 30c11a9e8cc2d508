"""``mesh up --wait``: until added nodes are ready, and the others were restarted."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from mesh.cli import changed
from mesh.cluster.run import RUNNING, Run
from mesh.cluster.status import MeshStatus, NodeRow

RUN = Run("m", "m.yaml", "/nowhere", "local", "", "", (), 1, 1.0, RUNNING)
EDGE = NodeRow("edge-1", "edge", "ready", uptime=3600.0)
STATUS = MeshStatus("m", "ready", "", "", "", "", (), 0, (EDGE,))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed, "_POLL", 0.01)


def shows(monkeypatch: pytest.MonkeyPatch, *rows: tuple[NodeRow, ...]) -> None:
    """The status has these rows, one after the other; the last ones stay."""
    left = list(rows)

    def status_of(run: Run) -> MeshStatus:
        return replace(STATUS, nodes=left.pop(0) if len(left) > 1 else left[0])

    monkeypatch.setattr(changed, "status_of", status_of)


def test_it_waits_for_added_nodes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    new = replace(EDGE, name="edge-2", state="starting", uptime=0.0)
    shows(monkeypatch, (EDGE,), (EDGE, new), (EDGE, replace(new, state="ready", uptime=0.1)))
    assert changed._wait(RUN, ["edge-2"], [], time.time(), 0.0) == 0
    said = capsys.readouterr()
    assert "edge-2           starting" in said.err
    assert "edge-1" not in said.err
    assert "every added or restarted node is ready" in said.out


def test_it_waits_until_a_node_was_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = time.time()
    down = replace(EDGE, state="starting", uptime=0.0)
    shows(monkeypatch, (EDGE,), (EDGE,), (down,), (replace(EDGE, uptime=1e-6),))
    assert changed._wait(RUN, [], ["edge-1"], begun, 0.0) == 0


def test_a_node_that_does_not_come_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(changed, "READY_DEADLINE", 0.05)
    shows(monkeypatch, (EDGE,))
    assert changed._wait(RUN, ["edge-2"], ["edge-1"], time.time(), 0.0) == 1
    assert "not all of edge-2, edge-1 are ready" in capsys.readouterr().err
