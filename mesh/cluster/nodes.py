"""Composition: builds the node of an assignment."""

from __future__ import annotations

from pathlib import Path

from mesh.cluster.etcd import EtcdNode
from mesh.cluster.node import CORE, DOOR, EDGE, ETCD, Assignment, Node
from mesh.cluster.run import claim_folder
from mesh.core.node import CoreNode
from mesh.edge.node import EdgeNode
from mesh.frontdoor.node import DoorNode
from mesh.node.config import NodeConfig
from mesh.node.registry import etcd_folder
from mesh.private import make_private
from mesh.topology.nodes import nodes
from mesh.topology.topology import from_dict


def build(assignment: Assignment) -> Node:
    """The node of an assignment, not started. Raises ``ValueError`` if the topology does not have this node."""
    if assignment.role == ETCD:
        return EtcdNode(etcd_folder(Path(assignment.data)))
    config = place_of(assignment)
    if assignment.role == EDGE:
        return EdgeNode(config)
    if assignment.role == CORE:
        return CoreNode(config)
    if assignment.role == DOOR:
        return DoorNode(config)
    raise ValueError(f"there is no role {assignment.role!r}")


def place_of(assignment: Assignment) -> NodeConfig:
    topology = from_dict(dict(assignment.settings))
    spec = next((spec for spec in nodes(topology) if spec.name == assignment.name), None)
    if spec is None:
        raise ValueError(f"the topology has no node {assignment.name!r}")
    claim_folder(Path(assignment.data))
    make_private(assignment.folder)
    return NodeConfig(topology, spec, assignment.endpoints, assignment.folder, bytes.fromhex(assignment.secret))
