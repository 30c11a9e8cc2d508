"""What ``mesh status`` may claim: how old each row is, and which rows say nothing about the present."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mesh.cluster.known import Known
from mesh.cluster.look import FRESH, status_of
from mesh.cluster.processes import started
from mesh.cluster.raycalls import Unreached
from mesh.cluster.run import RUNNING, Run, save_plan, status_path
from mesh.cluster.run import replace as replace_file
from mesh.cluster.status import NodeRow, Snapshot
from mesh.registry.members import Member
from tests.cluster.meshes import fake_plan

FIGURES = {"mesh_sessions": 7.0}
EDGE = NodeRow("edge-1", "edge", "ready", pid=os.getpid(), host="10.0.0.1", connections=7, figures=FIGURES)
DOOR = NodeRow("door", "door", "ready", pid=os.getpid(), host="10.0.0.2", connections=3)


def here(data: Path) -> Run:
    return Run("m", "m.yaml", str(data), "local", "", "", (), os.getpid(), started(os.getpid()) or 0.0, RUNNING)


def on_cluster(data: Path) -> Run:
    return replace(here(data), ray="10.0.0.5:6379", address="10.0.0.5:6379", supervisor=0, since=1.0)


def write(data: Path, snapshot: Snapshot, age: float = 0.0) -> None:
    replace_file(status_path(data), json.dumps(asdict(replace(snapshot, written=time.time() - age))))


def no_ray(run: Run) -> Snapshot:
    raise Unreached(f"Ray at {run.address} does not answer: Connection refused")


def test_a_node_that_was_not_heard_of_is_unreachable_with_its_last_figures(tmp_path: Path) -> None:
    write(tmp_path, Snapshot("m", "ready", (replace(EDGE, age=FRESH + 1), DOOR)))
    status = status_of(here(tmp_path))
    edge, door = status.nodes
    assert (edge.state, edge.connections, edge.figures, edge.host) == ("unreachable", 7, FIGURES, "10.0.0.1")
    assert edge.age >= FRESH + 1
    assert (door.state, door.age < FRESH) == ("ready", True)
    assert not status.all_ready
    assert status.state != "ready"


def test_rows_grow_old_with_the_snapshot(tmp_path: Path) -> None:
    run = replace(here(tmp_path), since=1.0)
    write(tmp_path, Snapshot("m", "ready", (replace(EDGE, age=4.0), DOOR)), age=7.0)
    status = status_of(run)
    assert [row.state for row in status.nodes] == ["unreachable", "ready"]
    assert status.nodes[0].age >= 11.0
    write(tmp_path, Snapshot("m", "ready", (EDGE, DOOR)), age=3600.0)
    status = status_of(run)
    assert [row.state for row in status.nodes] == ["unreachable", "unreachable"]
    assert status.state == "unreachable"
    assert status.age >= 3600.0


def test_without_ray_the_last_status_is_shown_and_what_was_not_reached_is_said(tmp_path: Path) -> None:
    write(tmp_path, Snapshot("m", "ready", (EDGE, DOOR)), age=120.0)
    status = status_of(on_cluster(tmp_path), no_ray)
    assert status.notes == ("Ray at 10.0.0.5:6379 does not answer: Connection refused",)
    assert [(row.state, row.connections) for row in status.nodes] == [("unreachable", 7), ("unreachable", 3)]
    assert all(row.age >= 120.0 for row in status.nodes)


def test_without_ray_and_files_the_announced_nodes_are_shown(tmp_path: Path) -> None:
    member = Member("edge-1", "edge", "10.0.0.1", {}, pid=42)
    status = status_of(on_cluster(tmp_path), no_ray, lambda: Known(True, {"edge-1": member}))
    (row,) = status.nodes
    assert (row.name, row.role, row.state, row.host, row.pid) == ("edge-1", "edge", "unreachable", "10.0.0.1", 42)
    assert row.detail == "announced in etcd: its process runs"


def test_without_ray_the_nodes_of_the_plan_are_shown(tmp_path: Path) -> None:
    save_plan(fake_plan(tmp_path, "m"))
    status = status_of(on_cluster(tmp_path), no_ray, lambda: Known(True))
    assert [(row.name, row.state, row.detail) for row in status.nodes] == [
        ("edge-1", "unreachable", "not announced in etcd"), ("door", "unreachable", "not announced in etcd")
    ]  # fmt: skip


def test_a_mesh_that_runs_elsewhere_says_where(tmp_path: Path) -> None:
    run = replace(here(tmp_path), host="far-away", supervisor=1)
    assert run.is_alive()
    door = Member("door", "door", "10.0.0.9", {})
    status = status_of(run, registry=lambda: Known(True, {"door": door}))
    assert "far-away" in status.notes[0]
    assert [(row.name, row.host, row.state) for row in status.nodes] == [("door", "10.0.0.9", "unreachable")]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nodes": 1}'])
def test_a_damaged_status_file_is_no_error(tmp_path: Path, text: str) -> None:
    save_plan(fake_plan(tmp_path, "m"))
    replace_file(status_path(tmp_path), text)
    assert [row.state for row in status_of(here(tmp_path)).nodes] == ["starting", "starting"]


def test_a_node_that_refused_a_revision_does_not_follow_it(tmp_path: Path) -> None:
    write(tmp_path, Snapshot("m", "ready", (replace(EDGE, revision=3, detail="etcd is away"), DOOR)))
    known = Known(True, {}, None, {"door": 4}, {"edge-1": "does not follow revision 4: no such file"})
    edge, door = status_of(here(tmp_path), registry=lambda: known).nodes
    assert (edge.revision, edge.detail) == (3, "does not follow revision 4: no such file; etcd is away")
    assert (door.revision, door.detail) == (4, "")
