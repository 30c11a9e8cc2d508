"""The settings that a node takes without any change of its parts.

It knows the declared effects of changes: never the parts of a node. What always holds: a revision that would need a
change of a running part is refused with the keys that need it, so no node claims to follow what it does not.
"""

from __future__ import annotations

from typing import Final

from mesh.node.config import NodeConfig
from mesh.node.prepared import Prepared
from mesh.topology.change import Change, Kind, changes

_SERVICES: Final = ("pools", "telemetry", "logs")  # keys that each node takes with its services
_NAMED: Final = 5  # keys in the sentence


def without_changes(running: NodeConfig, config: NodeConfig, taken: tuple[str, ...] = ()) -> Prepared:
    """``running``: the settings that the node has. Raises ``ValueError`` if it would have to take a key of ``config``
    while it serves. ``taken``: keys, and sections, that its caller prepares itself."""
    found = [
        change.path
        for change in changes(running.topology, config.topology)
        if change.kind is Kind.LIVE and not _of_other_nodes(change) and not _is_in(change.path, (*taken, *_SERVICES))
    ]
    name = running.name
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise ValueError(
            f"{name} cannot take this while it runs: {', '.join(found[:_NAMED])}{more}; "
            "stop the mesh and start it with the changed file"
        )
    return Prepared()


def _is_in(path: str, keys: tuple[str, ...]) -> bool:
    return any(path == key or path.startswith(f"{key}.") for key in keys)


def _of_other_nodes(change: Change) -> bool:
    """Whether only nodes are added or removed, which the membership tells."""
    return bool(change.nodes)
