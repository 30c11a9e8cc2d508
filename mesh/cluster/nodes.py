"""Composition: builds the node of an assignment."""

from __future__ import annotations

from pathlib import Path

from mesh.cluster.etcd import EtcdNode
from mesh.cluster.node import CORE, DOOR, EDGE, ETCD, Assignment, Node
from mesh.cluster.place import place_of
from mesh.core.node import CoreNode
from mesh.edge.node import EdgeNode
from mesh.frontdoor.node import DoorNode
from mesh.node.registry import etcd_folder


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
