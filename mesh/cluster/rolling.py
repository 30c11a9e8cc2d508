"""Which node a rolling change restarts next, and how long it has to stop.

Knows plans and what the controller has seen of the nodes; pure functions. What always holds: at most one node is away
for a change; the next one is restarted when every planned node serves (or stays down until an operator acts), and each
core and front door has said since then that its links to all edges are up.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final, Protocol

from mesh.cluster import host
from mesh.cluster.host import Report
from mesh.cluster.node import CORE, DOOR, EDGE
from mesh.cluster.plan import ClusterPlan, PlannedNode
from mesh.figures.node import NodeStatus
from mesh.figures.status import readings

SETTLED: Final = (host.READY, host.DAMAGED)

# Seconds for a node that sends no connections away: it closes its links and its journal.
GRACE: Final = 5.0

# Connections that a front door sends away in a second: all of them connect to other doors.
_PER_SECOND: Final = 100.0

# Seconds after which a figure is read again (``host``), and some for the way of the report. An older report may tell
# of links as they were before the last node was restarted.
_FRESH: Final = 1.0

_LINK_UP: Final = "mesh_link_up"


class View(Protocol):
    """What is known of one node. Times are of one clock."""

    @property
    def report(self) -> Report | None: ...
    @property
    def state(self) -> str: ...
    @property
    def heard(self) -> float:
        """When it reported last."""
    @property
    def changed(self) -> float:
        """When its state changed last."""


def next_restart(plan: ClusterPlan, seen: Mapping[str, View], behind: Set[str]) -> PlannedNode | None:
    """The node to restart now; ``None`` if there is none, or another has to come back first. ``behind``: the nodes that
    were started with settings that a restart changes."""
    node = next((node for node in plan.nodes if node.name in behind and seen[node.name].state == host.READY), None)
    return None if node is None or obstacle(plan, seen) else node


def obstacle(plan: ClusterPlan, seen: Mapping[str, View]) -> str:
    """What the next restart waits for, in a few words; empty if nothing."""
    away = [node.name for node in plan.nodes if seen[node.name].state not in SETTLED]
    if away:
        return f"{', '.join(away)} to be ready"
    since = max((seen[node.name].changed for node in plan.nodes), default=0.0) + _FRESH
    for node in plan.nodes:
        it = seen[node.name]
        if it.state != host.READY or it.report is None or node.role not in (CORE, DOOR):
            continue
        if it.heard < since:
            return f"news of {node.name}"
        if down := _down(plan, seen, it.report.status):
            return f"the links of {node.name} to {', '.join(down)}"
    return ""


def _down(plan: ClusterPlan, seen: Mapping[str, View], status: NodeStatus) -> list[str]:
    """The edges that serve and to which a node has no link. A status without a kind says nothing of links."""
    if type(status) is NodeStatus:
        return []
    up = {
        reading.labels[reading.instrument.labels.index("peer")]
        for reading in readings(status)
        if reading.instrument.name == _LINK_UP and reading.value
    }
    edges = [node.name for node in plan.nodes if node.role == EDGE and seen[node.name].state == host.READY]
    return [name for name in edges if name not in up]


def grace(plan: ClusterPlan, seen: Mapping[str, View], name: str) -> float:
    """Seconds for a node to stop. A front door takes half of its time to send its connections away, one after another,
    if another door serves; if none does, they are back sooner the sooner this one is."""
    report = seen[name].report
    others = (node.name for node in plan.nodes if node.role == DOOR and node.name != name)
    if report is None or report.role != DOOR or not any(seen[other].state == host.READY for other in others):
        return GRACE
    return max(GRACE, 2 * min(plan.over, report.status.connections / _PER_SECOND))
