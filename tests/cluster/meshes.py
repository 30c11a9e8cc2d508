"""Whole meshes of fake nodes for the tests."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mesh.cluster.lifecycle import down
from mesh.cluster.plan import ClusterPlan, PlannedNode
from tests.support.ports import free_ports

# The nodes' processes must not have the checkout on their path: it would hide an installed mesh.
FACTORY = "mesh_fake_node:build"

ROLES = {"edge-1": "edge", "edge-2": "edge", "core": "core", "door": "door"}


def fake_plan(
    data: Path, mesh: str = "fake", names: tuple[str, ...] = ("edge-1", "door"), **settings: object
) -> ClusterPlan:
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    nodes = tuple(PlannedNode(name, ROLES[name]) for name in names)
    return ClusterPlan(mesh, str(data), "local", (), nodes, {"ports": ports, **settings}, FACTORY)


def port_of(plan: ClusterPlan, name: str) -> int:
    ports = plan.settings["ports"]
    assert isinstance(ports, dict)
    return int(ports[name])


def served_by(plan: ClusterPlan, name: str) -> int:
    """The process number that a fake node answers with; 0 if it does not answer."""
    try:
        with socket.create_connection(("127.0.0.1", port_of(plan, name)), timeout=1.0) as connection:
            return int(connection.makefile("rb").readline() or b"0")
    except OSError:
        return 0


def offer_fake_nodes(folder: Path) -> None:
    """Put the fake node on the path of the meshes that these tests start."""
    folder.mkdir(exist_ok=True)
    shutil.copy(Path(__file__).parents[1] / "fakes" / "node.py", folder / "mesh_fake_node.py")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


@contextmanager
def going_down(*data: Path) -> Iterator[None]:
    try:
        yield
    finally:
        for folder in data:
            down(folder)
