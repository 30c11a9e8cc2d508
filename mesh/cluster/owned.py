"""What the nodes that a new file lacks own, and how many vehicles stay against the rules of its pools.

Knows the map in etcd and the figures of cores. What always holds: a number that is not known is left out, never taken
for zero; a map that is too large to be read in time gives lower bounds, and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, final

from mesh.cluster.status import READY, NodeRow
from mesh.registry.census import census
from mesh.registry.client import EtcdClient
from mesh.topology.change import stray
from mesh.topology.nodes import nodes
from mesh.topology.topology import Topology

# Seconds to read the map: some hundred thousand vehicles.
_READ: Final = 4.0

_SPOOLED: Final = "mesh_link_spool_messages"


@final
@dataclass(frozen=True, slots=True)
class Owned:
    """``nodes``: what each node owns: an edge vehicles, a core sessions of back ends and messages for edges.
    ``staying``: vehicles whose edge is in another pool than the rules of the new file say. ``exact``: whether these are
    the numbers, or lower bounds."""

    nodes: Mapping[str, int] = field(default_factory=dict)
    staying: int = 0
    exact: bool = True


async def vehicles(client: EtcdClient, topology: Topology, new: Topology, seconds: float = _READ) -> Owned:
    """What the map says of the edges that ``new`` lacks, those of ``topology`` among them. An edge with no vehicle in a
    part of the map is not known. Raises ``RegistryError``."""
    kept = {edge.name for edge in new.edges()}
    is_stray = stray(new)
    found = await census(client, topology.mesh, lambda vehicle, edge: edge in kept and is_stray(vehicle, edge), seconds)
    missing = {*(edge.name for edge in topology.edges()), *found.edges} - kept
    return Owned(found.owned(missing), found.strays, found.exact)


def sessions(topology: Topology, new: Topology, rows: Iterable[NodeRow]) -> dict[str, int]:
    """What the cores that ``new`` lacks own, by their rows; only of those that serve."""
    gone = removed_cores(topology, new)
    return {row.name: row.sessions + _spooled(row) for row in rows if row.name in gone and row.state == READY}


def removed_cores(topology: Topology, new: Topology) -> set[str]:
    """The cores that ``new`` lacks."""
    return {spec.name for spec in nodes(topology) if spec.role == "core"} - {spec.name for spec in nodes(new)}


def _spooled(row: NodeRow) -> int:
    return int(sum(value for series, value in row.figures.items() if series.partition("{")[0] == _SPOOLED))
