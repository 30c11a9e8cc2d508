"""What ``mesh status`` prints: where each node runs, which settings it follows, and how old that is."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.cluster.lifecycle import planned
from mesh.cluster.processes import started
from mesh.cluster.run import RUNNING, Run, save_plan, save_run
from mesh.cluster.status import NodeRow, Snapshot, save_status
from mesh.topology.load import load
from tests.support.topologies import topology

EDGE = NodeRow("edge-1", "edge", "ready", pid=os.getpid(), host="10.0.0.7", revision=4, connections=12, uptime=60.0)
CORE = replace(EDGE, name="core", role="core", host="10.0.0.8", age=75.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A mesh that runs as this process, as its files say; its etcd does not answer."""
    folder = tmp_path / "shop"
    folder.mkdir()
    file = topology(folder, 18830, 18840, ["edge-1"])
    plan = planned(load(file))
    save_plan(plan)
    pid = os.getpid()
    save_run(
        Run(plan.mesh, str(file), plan.data, "local", "", "", plan.endpoints, pid, started(pid) or 0.0, RUNNING)
    )
    save_status(Path(plan.data), Snapshot(plan.mesh, "ready", (EDGE, CORE)))
    return file


def test_a_row_has_host_revision_and_age(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(file)]) == 1
    said = capsys.readouterr()
    assert "etcd does not answer" in said.err
    head, edge, core = (line.split() for line in said.out.splitlines()[1:4])
    shown = dict(zip(head[:6], edge[:6], strict=True))
    assert shown == {
        "name": "edge-1", "role": "edge", "state": "ready", "host": "10.0.0.7", "pid": str(os.getpid()), "revision": "4"
    }  # fmt: skip
    assert "age" in head
    assert core[2:4] == ["unreachable", "10.0.0.8"]
    assert "1.2 min" in said.out or "1.3 min" in said.out


def test_json_has_the_same_with_the_last_figures(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(file), "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    edge, core = shown["nodes"]
    assert (edge["state"], edge["host"], edge["revision"], edge["age"] < 10) == ("ready", "10.0.0.7", 4, True)
    assert (core["state"], core["connections"], core["age"] >= 75.0) == ("unreachable", 12, True)
    assert any("etcd does not answer" in note for note in shown["notes"])
