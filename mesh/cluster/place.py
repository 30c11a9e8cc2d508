"""The configuration of a node from its assignment.

It knows the folders of the mesh: never what a role does with its configuration. What always holds: the node's folder
exists and belongs to this mesh alone.
"""

from __future__ import annotations

from pathlib import Path

from mesh.cluster.node import Assignment
from mesh.cluster.run import claim_folder
from mesh.node.config import NodeConfig
from mesh.node.secretwatch import read_changed
from mesh.policy.secrets import FILE, MeshSecret
from mesh.private import make_private
from mesh.topology.nodes import spec_of
from mesh.topology.topology import from_dict


def place_of(assignment: Assignment) -> NodeConfig:
    """Raises ``ValueError`` if the topology does not have this node; ``NotPrivate``, ``OSError``, ``SecretError``."""
    topology = from_dict(dict(assignment.settings))
    spec = spec_of(topology, assignment.name)
    if spec is None:
        raise ValueError(f"the topology of mesh {assignment.mesh!r} has no {assignment.name}")
    claim_folder(Path(assignment.data))
    make_private(assignment.folder)
    secret = MeshSecret(bytes.fromhex(assignment.secret))
    changed = read_changed(Path(assignment.data) / FILE, assignment.since)
    if changed is not None:
        secret.take(changed)
    return NodeConfig(
        topology, spec, assignment.endpoints, assignment.folder, secret, assignment.revision, assignment.since
    )
