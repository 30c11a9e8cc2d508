"""What the cluster asks of a node, and what it hands to it.

Knows no role, no Ray and no process. What always holds: a node is built from one ``Assignment`` and nothing else, so
that a process that comes back after a crash builds the same node again from the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from mesh.figures.node import NodeStatus

ETCD: Final = "etcd"
EDGE: Final = "edge"
CORE: Final = "core"
DOOR: Final = "door"
CONSOLE: Final = "console"

# Starting order: each role may lean on those before it. Stopping is the other way round. The console leans on nobody;
# it comes last so that nobody waits for it.
STAGES: Final[dict[str, int]] = {ETCD: 0, EDGE: 1, CORE: 2, DOOR: 3, CONSOLE: 3}


class Node(Protocol):
    """One running part of the mesh. All three are called on the node's own event loop."""

    async def start(self) -> None:
        """Serve. Whatever is raised is shown to the user as it reads, so it must be one clear sentence."""

    async def stop(self, grace: float) -> None:
        """End within ``grace`` seconds. Called at most once, also after a ``start`` that failed half-way."""

    def status(self) -> NodeStatus:
        """How it is at present; its class says more than ``NodeStatus`` where there is more."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that a node is built from; plain values, so that it travels to any machine.

    ``settings`` is the whole topology as plain values, ``endpoints`` are etcd's, ``data`` is the folder of the whole
    mesh, ``secret`` is the mesh's in hexadecimal, and ``factory`` is ``module:function`` with
    ``function(assignment) -> Node``.
    """

    mesh: str
    name: str
    role: str
    settings: Mapping[str, object]
    endpoints: tuple[str, ...]
    data: str
    factory: str
    secret: str = ""

    @property
    def folder(self) -> Path:
        """The folder of this node alone; not made yet."""
        return Path(self.data) / "nodes" / self.name
