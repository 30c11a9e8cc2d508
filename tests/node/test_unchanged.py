"""Which settings a node takes without any change of its parts."""

from __future__ import annotations

import pytest

from mesh.node.unchanged import without_changes
from tests.support import configs
from tests.support.configs import TOPOLOGY, config


def changed(monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str, more: str = "") -> None:
    """Prepare the topology with a change of its text for the node ``name``."""
    before = config(name, more)
    assert old in TOPOLOGY
    monkeypatch.setattr(configs, "TOPOLOGY", TOPOLOGY.replace(old, new))
    without_changes(before, config(name, more)).commit()


@pytest.mark.parametrize("name", ["edge-1", "core", "door"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{name: edge-2}", "{name: edge-2}, {name: edge-3}"),
        ("replicas: 2", "replicas: 3"),
        ("mesh: demo", "mesh: demo"),
    ],
)
def test_nodes_may_come_and_nothing_else_changes(
    monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str
) -> None:
    changed(monkeypatch, name, old, new)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("mesh: demo", "mesh: demo\nlimits: {sessions: 5}", "limits.sessions"),
        ("{name: edge-1}", "{name: edge-1, weight: 7}", "pools.standard.edges.edge-1.weight"),
        ("pools: [", "pools: [{name: vans, prefix: VAN, edges: [{name: edge-9}]}, ", "pools.vans"),
    ],
)
def test_a_key_that_a_part_would_have_to_take_is_named(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str, key: str
) -> None:
    with pytest.raises(ValueError, match=f"cannot take this while it runs: .*{key}"):
        changed(monkeypatch, "door", old, new)


def test_another_port_for_the_metrics_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    more = 'telemetry: {prometheus: "127.0.0.1:9100"}\n'
    with pytest.raises(ValueError, match=r"telemetry\.prometheus"):
        changed(monkeypatch, "door", "{name: edge-2}", "{name: edge-2}, {name: edge-3}", more)
    changed(monkeypatch, "edge-1", "{name: edge-2}", "{name: edge-2}, {name: edge-3}", more)
