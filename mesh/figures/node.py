"""What every kind of node tells of itself, whatever runs in it.

It knows no kind of node: each adds its own parts in a subclass. It is here, and not in a room above, so that the
commands that look at a mesh load nothing of what a node runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.figures.status import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus(Status):
    """What ``mesh status`` shows of a node; this alone while the node starts, a subclass for its role afterwards.

    ``host`` is where it listens; ``metrics`` where Prometheus reads it, empty if nowhere; ``detail`` is one sentence on
    what is wrong. ``queued`` are messages that wait.
    """

    host: str = ""
    metrics: str = ""
    detail: str = ""
    connections: int = 0
    sessions: int = 0
    queued: int = 0
