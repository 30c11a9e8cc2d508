"""The plan: the nodes of a mesh, as plain values.

Knows the topology's nodes; never knows Ray, processes or clocks. What always holds: a plan is complete, so a controller
needs nothing else to restart; the plans of one run differ only in what a revision of the settings may change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from mesh.cluster.node import CONSOLE, ETCD, STAGES, Assignment
from mesh.topology.nodes import nodes
from mesh.topology.topology import Topology, as_dict

FACTORY: Final = "mesh.cluster.nodes:build"

# A name, not an import: this room must not import the rooms of the nodes.
CONSOLE_FACTORY: Final = "mesh.console.node:build"

LOCAL: Final = "local"


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """One node of a plan. ``resources`` are Ray's."""

    name: str
    role: str
    resources: Mapping[str, float] = field(default_factory=dict)
    listens: tuple[str, ...] = ()

    @property
    def stage(self) -> int:
        return STAGES[self.role]


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A whole mesh. ``ray`` is ``local`` or an address. ``revision``: of the settings, 0 if they have none yet;
    ``over``: the seconds in which a front door that the revision restarts or removes sends its connections away.
    ``since``: when ``mesh up`` began this run, in seconds since 1970; it tells the run from others."""

    mesh: str
    data: str
    ray: str
    endpoints: tuple[str, ...]
    nodes: tuple[PlannedNode, ...]
    settings: Mapping[str, object]
    factory: str = FACTORY
    secret: str = field(default="", repr=False)
    revision: int = 0
    over: float = 0.0
    since: float = 0.0

    def node(self, name: str) -> PlannedNode | None:
        return next((node for node in self.nodes if node.name == name), None)

    def assignment(self, node: PlannedNode) -> Assignment:
        factory = CONSOLE_FACTORY if node.role == CONSOLE else self.factory
        return Assignment(
            self.mesh, node.name, node.role, self.settings, self.endpoints, self.data, factory, self.secret,
            self.revision, self.since,
        )  # fmt: skip

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> ClusterPlan:
        """The plan that ``to_json`` gave, also of another version: unknown keys are ignored. Raises ``ValueError``."""
        try:
            value = json.loads(text)
            given = [_known(PlannedNode, {**node, "listens": tuple(node["listens"])}) for node in value["nodes"]]
            found = tuple(PlannedNode(**node) for node in given)
            plain = _known(ClusterPlan, value)
            return ClusterPlan(**{**plain, "endpoints": tuple(value["endpoints"]), "nodes": found})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"this is no plan of a mesh: {error!r}") from error


def _known(kind: Any, value: Mapping[str, Any]) -> dict[str, Any]:
    names = {item.name for item in fields(kind)}
    return {name: item for name, item in value.items() if name in names}


def plan_of(topology: Topology, endpoints: Iterable[str], secret: bytes) -> ClusterPlan:
    """The plan for a topology. ``endpoints`` are etcd's: those named in the file, or those of the embedded etcd.
    ``secret`` is the mesh's; the plan carries it, so that nodes on other machines have the same secret."""
    planned: list[PlannedNode] = []
    if topology.etcd.embedded:
        planned.append(PlannedNode(ETCD, ETCD))
    for node in nodes(topology):
        listens = tuple(f"{listener.kind}://{listener.address}" for listener in node.listen)
        planned.append(PlannedNode(node.name, node.role, dict(node.resources), listens))
    scheme = "http" if topology.internal is None else "https"
    if topology.console is not None:
        planned.append(PlannedNode(CONSOLE, CONSOLE, listens=(f"{scheme}://{topology.console}",)))
    return ClusterPlan(
        mesh=topology.mesh,
        data=str(topology.data),
        ray=topology.ray,
        endpoints=tuple(endpoints),
        nodes=tuple(planned),
        settings=as_dict(topology),
        secret=secret.hex(),
    )


def revised(plan: ClusterPlan, topology: Topology, revision: int, over: float) -> ClusterPlan:
    """The plan of the same run for later settings."""
    made = plan_of(topology, plan.endpoints, bytes.fromhex(plan.secret))
    return replace(
        made, data=plan.data, ray=plan.ray, factory=plan.factory, since=plan.since, revision=revision, over=over
    )
