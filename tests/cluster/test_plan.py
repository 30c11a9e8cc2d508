"""Plans: the plan of a topology, and of its later revisions."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mesh.cluster.node import STAGES
from mesh.cluster.plan import ClusterPlan, plan_of, revised
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


def test_the_plan_of_another_version_is_read(tmp_path: Path) -> None:
    """As after an update of the package: the mesh starts with its revision in place of one of a new mesh."""
    before = replace(plan(tmp_path), revision=7)
    value = json.loads(before.to_json())
    value["shared"] = "a key that this version does not have"
    value["nodes"][0]["fingerprint"] = "another one"
    del value["since"]
    assert ClusterPlan.from_json(json.dumps(value)) == ClusterPlan.from_json(before.to_json())


@pytest.mark.parametrize("text", ["[]", "{}", '{"nodes": [7]}', "{", '{"nodes": [], "endpoints": []}'])
def test_a_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSON's own errors, too
        ClusterPlan.from_json(text)


def test_later_settings_keep_what_belongs_to_the_run(tmp_path: Path) -> None:
    before = replace(plan(tmp_path), factory="a:b", since=12.5, data="/elsewhere", revision=1)
    more = plan(tmp_path, ("{name: edge-2}", "{name: edge-2}, {name: edge-3}"))
    after = revised(before, load(tmp_path / "topology.yaml"), 2, 60.0)
    assert {node.name for node in after.nodes} - {node.name for node in before.nodes} == {"edge-3"}
    assert asdict(after) == {
        **asdict(more), "factory": "a:b", "since": 12.5, "data": "/elsewhere", "revision": 2, "over": 60.0
    }  # fmt: skip
    assert after.assignment(after.nodes[1]).revision == 2
