"""Configurations of the nodes of one small mesh."""

from __future__ import annotations

from pathlib import Path

from mesh.node.config import NodeConfig
from mesh.policy.secrets import MeshSecret
from mesh.topology.load import loads
from mesh.topology.nodes import nodes

TOPOLOGY = """
mesh: demo
etcd: ["http://127.0.0.1:2379"]
front_doors: [{name: door, listen: [{mqtt: "127.0.0.1:0"}]}]
cores: [{name: core, replicas: 2, listen: [{mqtt: "127.0.0.1:0"}]}]
pools: [{name: standard, edges: [{name: edge-1}, {name: edge-2}]}]
"""


def config(name: str, more: str = "", secret: bytes = b"s" * 32) -> NodeConfig:
    """The configuration of the node ``name``; ``more`` is appended to the topology."""
    topology = loads((TOPOLOGY + more).encode(), "mesh.yaml", Path("."))
    spec = next(spec for spec in nodes(topology) if spec.name == name)
    return NodeConfig(topology, spec, ("http://127.0.0.1:2379",), Path("."), MeshSecret(secret))
