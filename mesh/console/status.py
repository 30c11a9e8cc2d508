"""The console's metrics: its own, and the controller's view of the whole mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, final

from mesh.cluster.status import READY, MeshStatus
from mesh.figures.instrument import Label, counter, gauge
from mesh.figures.node import NodeStatus
from mesh.figures.status import Status

_NODE: Final = ("node", "role")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleStatus(NodeStatus):
    """The console's own connections."""

    open: Annotated[int, gauge("mesh_console_connections", "Open connections of the console.")]
    refused: Annotated[
        int,
        counter("mesh_console_refused_total", "Connections that the console closed at once because it had too many."),
    ]


@final
@dataclass(frozen=True, slots=True)
class NodeView(Status):
    """One node as the controller sees it."""

    node: Annotated[str, Label("node")]
    role: Annotated[str, Label("role")]
    up: Annotated[bool, gauge("mesh_node_up", "Whether the node has a process.", _NODE)]
    ready: Annotated[bool, gauge("mesh_node_ready", "Whether the node serves.", _NODE)]
    restarts: Annotated[
        int,
        counter("mesh_node_restarts_total", "Restarts of the node since the mesh was started.", _NODE),
    ]


@final
@dataclass(frozen=True, slots=True)
class MeshView(Status):
    """All metrics of the console."""

    console: ConsoleStatus
    nodes: tuple[NodeView, ...]


def view(console: ConsoleStatus, mesh: MeshStatus) -> MeshView:
    """The metrics for the console's own status and the status of the mesh."""
    nodes = [NodeView(row.name, row.role, row.pid != 0, row.state == READY, row.restarts) for row in mesh.nodes]
    return MeshView(console, tuple(nodes))
