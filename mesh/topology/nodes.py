"""The nodes of a topology: one for each replica of a door or core, and one for each edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, final

from mesh.topology.keys import Role
from mesh.topology.topology import CoreSpec, FrontDoorSpec, ListenerSpec, Topology
from mesh.topology.units import Address

CONSOLE: Final = "console"
CONTROLLER: Final = "controller"

# Names of the processes that ``mesh.cluster`` runs besides the nodes.
RESERVED: Final = frozenset({CONTROLLER, "etcd", CONSOLE, "supervisor"})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """One node. ``pool`` and ``weight`` are an edge's, ``listen`` and ``redirect`` a door's or core's."""

    name: str
    role: Role | Literal["console"]
    pool: str = ""
    weight: int = 0
    listen: tuple[ListenerSpec, ...] = ()
    redirect: str = ""
    resources: dict[str, float] = field(default_factory=dict)


def replica_names(group: FrontDoorSpec | CoreSpec) -> list[str]:
    """``door`` and ``door-2`` for two replicas: if their number changes, each keeps its name and its journal."""
    return [group.name, *(f"{group.name}-{number}" for number in range(2, group.replicas + 1))]


def nodes(topology: Topology) -> list[NodeSpec]:
    """All nodes: edges first, then cores, then doors, which is also the best order to start them."""
    found = [
        NodeSpec(name=edge.name, role="edge", pool=pool.name, weight=edge.weight, resources=edge.resources)
        for pool in topology.pools
        for edge in pool.edges
    ]
    for core in topology.cores:
        found += [
            NodeSpec(name=name, role="core", listen=core.listen, redirect=core.redirect, resources=core.resources)
            for name in replica_names(core)
        ]
    for door in topology.front_doors:
        found += [
            NodeSpec(name=name, role="door", listen=door.listen, redirect=door.redirect, resources=door.resources)
            for name in replica_names(door)
        ]
    return found


def spec_of(topology: Topology, name: str) -> NodeSpec | None:
    """The node with this name, also the console, which is no part of ``nodes``; ``None`` if there is none."""
    if name == CONSOLE:
        return None if topology.console is None else NodeSpec(name=CONSOLE, role="console")
    return next((spec for spec in nodes(topology) if spec.name == name), None)


def metrics_addresses(topology: Topology) -> dict[str, Address]:
    """The metrics address of each node, by its name; empty without ``telemetry.prometheus``.

    Nodes of one machine cannot share a port, so each node gets the next one, in the order of ``nodes``. If the first
    port is 0, all are 0.
    """
    first = topology.telemetry.prometheus
    if first is None:
        return {}
    step = 0 if first.port == 0 else 1
    return {spec.name: Address(first.host, first.port + step * number) for number, spec in enumerate(nodes(topology))}
