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
        ("{name: edge-1}", "{name: edge-1, weight: 7}"),
        ("pools: [", "pools: [{name: vans, match: {prefix: VAN}, edges: [{name: edge-9}]}, "),
        ("mesh: demo", "mesh: demo\ntelemetry: {sample: 0.5, prometheus: '127.0.0.1:9100'}"),
    ],
)
def test_nodes_may_come_and_the_services_take_their_keys(
    monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str
) -> None:
    changed(monkeypatch, name, old, new)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("mesh: demo", "mesh: demo\nlimits: {sessions: 5}", "limits.sessions"),
        ("mesh: demo", "mesh: demo\naccess: {on_refusal: disconnect}", "access.on_refusal"),
    ],
)
def test_a_key_that_a_part_would_have_to_take_is_named(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str, key: str
) -> None:
    with pytest.raises(ValueError, match=f"cannot take this while it runs: .*{key}"):
        changed(monkeypatch, "door", old, new)
