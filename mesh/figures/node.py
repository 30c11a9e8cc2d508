"""The status that every kind of node has.

It must never know the kinds of nodes: each adds its parts in a subclass. It is in this room, and not in a room above,
so that the commands that show a mesh load no code of the nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.figures.status import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus(Status):
    """What ``mesh status`` shows of a node: this class while the node starts, then a subclass for its role.

    ``metrics`` is the address for Prometheus, empty for none; ``detail`` says in one sentence what is wrong. ``queued``
    is the number of messages that wait; ``revision`` is the number of the settings that the node follows, ``begun`` of
    those with which it started; 0 if they have none.
    """

    metrics: str = ""
    detail: str = ""
    connections: int = 0
    sessions: int = 0
    queued: int = 0
    revision: int = 0
    begun: int = 0
