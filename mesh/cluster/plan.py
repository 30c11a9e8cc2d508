"""The plan: the nodes of a mesh, as plain values.

Knows the topology's nodes and which changes a running mesh accepts; never knows Ray, processes or clocks. What always
holds: a plan is complete (a controller needs nothing else to restart), and if a node has the same fingerprint in two
plans, none of its settings differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from mesh.cluster.node import CONSOLE, CORE, DOOR, EDGE, ETCD, STAGES, Assignment
from mesh.topology.nodes import nodes
from mesh.topology.topology import Topology, as_dict

FACTORY: Final = "mesh.cluster.nodes:build"

# A name, not an import: this room must not import the rooms of the nodes.
CONSOLE_FACTORY: Final = "mesh.console.node:build"

LOCAL: Final = "local"

# The keys of a topology that only list nodes. All nodes share the values of the other keys.
NODE_LISTS: Final = ("front_doors", "cores", "pools", "console")


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """One node of a plan. ``resources`` are Ray's; ``fingerprint`` stands for all settings of this node."""

    name: str
    role: str
    fingerprint: str
    resources: Mapping[str, float] = field(default_factory=dict)
    listens: tuple[str, ...] = ()

    @property
    def stage(self) -> int:
        return STAGES[self.role]


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A whole mesh. ``ray`` is ``local`` or an address; ``shared`` is the fingerprint of the settings of all nodes;
    ``revision``: of the settings, 0 if they have none yet."""

    mesh: str
    data: str
    ray: str
    endpoints: tuple[str, ...]
    nodes: tuple[PlannedNode, ...]
    settings: Mapping[str, object]
    shared: str
    factory: str = FACTORY
    secret: str = field(default="", repr=False)
    revision: int = 0

    def node(self, name: str) -> PlannedNode | None:
        return next((node for node in self.nodes if node.name == name), None)

    def assignment(self, node: PlannedNode) -> Assignment:
        factory = CONSOLE_FACTORY if node.role == CONSOLE else self.factory
        return Assignment(
            self.mesh, node.name, node.role, self.settings, self.endpoints, self.data, factory, self.secret,
            self.revision,
        )  # fmt: skip

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> ClusterPlan:
        """The plan that ``to_json`` gave."""
        value = json.loads(text)
        value["endpoints"] = tuple(value["endpoints"])
        value["nodes"] = tuple(PlannedNode(**{**node, "listens": tuple(node["listens"])}) for node in value["nodes"])
        return ClusterPlan(**value)


def fingerprint(value: object) -> str:
    """A short hash of a plain value."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def plan_of(topology: Topology, endpoints: Iterable[str], secret: bytes) -> ClusterPlan:
    """The plan for a topology. ``endpoints`` are etcd's: those named in the file, or those of the embedded etcd.
    ``secret`` is the mesh's; the plan carries it, so that nodes on other machines have the same secret."""
    settings = as_dict(topology)
    shared = fingerprint({key: value for key, value in settings.items() if key not in NODE_LISTS})
    planned: list[PlannedNode] = []
    if topology.etcd.embedded:
        planned.append(PlannedNode(ETCD, ETCD, shared))
    for node in nodes(topology):
        listens = tuple(f"{listener.kind}://{listener.address}" for listener in node.listen)
        own = fingerprint([node.name, node.role, node.pool, node.weight, listens, dict(node.resources)])
        planned.append(PlannedNode(node.name, node.role, own, dict(node.resources), listens))
    if topology.console is not None:
        url = f"http://{topology.console}"
        planned.append(PlannedNode(CONSOLE, CONSOLE, fingerprint(url), listens=(url,)))
    return ClusterPlan(
        mesh=topology.mesh,
        data=str(topology.data),
        ray=topology.ray,
        endpoints=tuple(endpoints),
        nodes=tuple(planned),
        settings=settings,
        shared=shared,
        secret=secret.hex(),
    )


def objections(old: ClusterPlan, new: ClusterPlan) -> list[str]:
    """Why a running mesh cannot change from ``old`` to ``new``: one sentence for each reason; empty if it can.

    New nodes may be added; front doors and the console may be removed. Any other change needs ``mesh down`` and
    ``mesh up``.
    """
    wrong = []
    if new.mesh != old.mesh:
        wrong.append(f"the mesh is named {old.mesh!r} and cannot become {new.mesh!r} while it runs")
    if new.shared != old.shared:
        keys = [key for key in sorted({*old.settings, *new.settings}) if key not in NODE_LISTS]
        changed = [key for key in keys if fingerprint(old.settings.get(key)) != fingerprint(new.settings.get(key))]
        wrong.append(f"{', '.join(changed)} cannot change while the mesh runs: 'mesh down', then 'mesh up'")
    if new.endpoints != old.endpoints and not wrong:
        wrong.append(
            f"etcd is at {', '.join(old.endpoints)} and cannot become {', '.join(new.endpoints)} while the mesh runs: "
            "'mesh down', then 'mesh up'"
        )
    wrong += _rules(old, new)
    for before in old.nodes:
        after = new.node(before.name)
        if after is None:
            if before.role not in (DOOR, CONSOLE):
                wrong.append(f"{_label(before)} cannot be removed while the mesh runs: {_WHY[before.role]}")
        elif (after.role, after.fingerprint) != (before.role, before.fingerprint) and before.role != ETCD:
            wrong.append(f"{_label(before)} cannot change while the mesh runs: 'mesh down', then 'mesh up'")
    return wrong


def _rules(old: ClusterPlan, new: ClusterPlan) -> list[str]:
    """Why the pools and their rules cannot change: running nodes go on with those that they started with, so new
    vehicles would be put into other pools than the file says."""
    before, after = _pools(old), _pools(new)
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return [f"pool {name!r} cannot be added, changed or removed while the mesh runs: 'mesh down', then 'mesh up'"
            for name in changed]  # fmt: skip


def _pools(plan: ClusterPlan) -> dict[str, str]:
    """The prefix of each pool."""
    pools = plan.settings.get("pools")
    return {pool["name"]: pool["prefix"] for pool in pools} if isinstance(pools, list) else {}


def _label(node: PlannedNode) -> str:
    return f"{node.role} {node.name!r}"


_WHY: Final = {
    EDGE: "it owns the sessions of its vehicles",
    CORE: "it owns the sessions of back-end applications",
    ETCD: "it holds the map of the vehicles",
}
