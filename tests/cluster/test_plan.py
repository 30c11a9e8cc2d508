"""Plans: the plan of a topology, and the changes that a running mesh accepts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cluster.node import STAGES
from mesh.cluster.plan import ClusterPlan, objections, plan_of
from mesh.topology.load import load

LOCAL = Path(__file__).parents[2] / "topology" / "local.yaml"


def plan(tmp_path: Path, change: tuple[str, str] = ("", "")) -> ClusterPlan:
    text = LOCAL.read_text()
    assert change[0] in text
    file = tmp_path / "topology.yaml"
    file.write_text(text.replace(*change) if change[0] else text)
    return plan_of(load(file), ["http://127.0.0.1:2379"], bytes(32))


def test_a_plan_has_the_topologys_nodes_and_etcd(tmp_path: Path) -> None:
    found = {node.name: node.role for node in plan(tmp_path).nodes}
    assert found == {"etcd": "etcd", "edge-1": "edge", "edge-2": "edge", "core": "core", "door": "door"}


def test_every_role_has_a_stage_and_etcd_has_the_first(tmp_path: Path) -> None:
    stages = [node.stage for node in plan(tmp_path).nodes]
    assert stages == sorted(stages)
    assert STAGES["etcd"] == 0


def test_a_plan_survives_json(tmp_path: Path) -> None:
    before = plan(tmp_path)
    assert ClusterPlan.from_json(before.to_json()).to_json() == before.to_json()
    assert objections(before, ClusterPlan.from_json(before.to_json())) == []


def test_an_edge_may_be_added(tmp_path: Path) -> None:
    more = plan(tmp_path, ("{name: edge-2}", "{name: edge-2}, {name: edge-3}"))
    assert objections(plan(tmp_path), more) == []


def test_an_edge_may_not_be_removed(tmp_path: Path) -> None:
    less = plan(tmp_path, (", {name: edge-2}", ""))
    assert objections(plan(tmp_path), less) == [
        "edge 'edge-2' cannot be removed while the mesh runs: it owns the sessions of its vehicles"
    ]


def test_a_front_door_may_be_removed(tmp_path: Path) -> None:
    before = plan(tmp_path)
    after = replace(before, nodes=tuple(node for node in before.nodes if node.role != "door"))
    assert objections(before, after) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("1883", "11883"), "door 'door' cannot change"),
        (("max_messages: 1000", "max_messages: 10"), "inbox cannot change"),
        (("mesh: local", "mesh: other"), "cannot become 'other'"),
        (("name: standard", "name: usual"), "pool 'usual' cannot be added"),
        (("name: standard", "name: standard\n    match: {prefix: A}"), "pool 'standard' cannot be added, changed"),
    ],
)
def test_a_refused_change_is_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert any(said in line for line in objections(plan(tmp_path), plan(tmp_path, change)))


def test_etcd_may_not_get_another_address(tmp_path: Path) -> None:
    """As when the mesh was started by a release whose embedded etcd has no certificate."""
    before = plan(tmp_path)
    after = replace(before, endpoints=("https://127.0.0.1:2379",))
    said = "etcd is at http://127.0.0.1:2379 and cannot become https://127.0.0.1:2379 while the mesh runs: "
    assert objections(before, after) == [said + "'mesh down', then 'mesh up'"]
