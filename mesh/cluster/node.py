"""The interface between the cluster and a node: ``Node`` and ``Assignment``.

Knows no role, no Ray and no process. What always holds: a node is built from one ``Assignment`` and nothing else, so
that a restarted process builds the same node again from the same values.
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

# The order of start: each role may need those before it. The order of stop is the reverse. The console needs no other
# node; it is last so that no node waits for it.
STAGES: Final[dict[str, int]] = {ETCD: 0, EDGE: 1, CORE: 2, DOOR: 3, CONSOLE: 3}


class Node(Protocol):
    """One running part of the mesh. All three methods are called on the node's own event loop."""

    async def start(self) -> None:
        """Start to serve. The user sees the text of any exception, so it must be one clear sentence."""

    async def stop(self, grace: float) -> None:
        """Stop within ``grace`` seconds. Called at most once, also after a ``start`` that failed."""

    def status(self) -> NodeStatus:
        """The node's present status. A role with more figures returns a subclass of ``NodeStatus``."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """All inputs of a node, as plain values that can be sent to another machine.

    ``settings`` is the whole topology as plain values, ``endpoints`` are etcd's, ``data`` is the folder of the whole
    mesh, ``secret`` is the mesh's in hexadecimal, ``factory`` is ``module:function`` with
    ``function(assignment) -> Node``, ``revision`` is the number of the settings, 0 if they have none, and ``since`` is
    when this run of the mesh began, in seconds since 1970.
    """

    mesh: str
    name: str
    role: str
    settings: Mapping[str, object]
    endpoints: tuple[str, ...]
    data: str
    factory: str
    secret: str = ""
    revision: int = 0
    since: float = 0.0

    @property
    def folder(self) -> Path:
        """The folder of this node alone. The node creates it."""
        return Path(self.data) / "nodes" / self.name
