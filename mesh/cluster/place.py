"""The configuration of a node from its assignment.

It knows the folders of the mesh: never what a role does with its configuration. What always holds: the node's folder
exists and belongs to this mesh alone.
"""

from __future__ import annotations

from pathlib import Path

from mesh.cluster.node import Assignment
from mesh.cluster.run import claim_folder
from mesh.node.config import NodeConfig
from mesh.private import make_private
from mesh.topology.nodes import spec_of
from mesh.topology.topology import from_dict


def place_of(assignment: Assignment) -> NodeConfig:
    """Raises ``ValueError`` if the topology does not have this node; ``NotPrivate``, ``OSError``."""
    topology = from_dict(dict(assignment.settings))
    spec = spec_of(topology, assignment.name)
    if spec is None:
        raise ValueError(f"the topology of mesh {assignment.mesh!r} has no {assignment.name}")
    claim_folder(Path(assignment.data))
    make_private(assignment.folder)
    return NodeConfig(
        topology, spec, assignment.endpoints, assignment.folder, bytes.fromhex(assignment.secret), assignment.revision,
        assignment.since,
    )  # fmt: skip
