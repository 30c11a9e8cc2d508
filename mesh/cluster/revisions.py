"""The revisions of the settings with which nodes were started, to be compared with the one in force.

Knows topologies by number. It must never know where they are kept: ``following`` gets those that are wanted. What
always holds: a node of which the settings are not known yet is not restarted; few revisions are kept.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Final, final

from mesh.cluster.plan import ClusterPlan
from mesh.registry.settings import Revision
from mesh.topology.change import restarted
from mesh.topology.topology import Topology, from_dict

_MOST: Final = 100


@final
class Revisions:
    """Any thread may call its methods."""

    def __init__(self, plan: ClusterPlan) -> None:
        """``plan``: that of the start of the mesh. Its settings may have no number, and are known then."""
        self._start = plan
        self._lock = threading.Lock()
        self._known: dict[int, Topology] = {}
        self._wanted: set[int] = set()
        self._found: dict[tuple[int, int], frozenset[str]] = {}

    def behind(self, begun: Mapping[str, int], plan: ClusterPlan) -> frozenset[str]:
        """The nodes that have to be restarted for the plan. ``begun``: the revisions with which nodes were started."""
        older = {name: number for name, number in begun.items() if number < plan.revision}
        restarts = {number: self._restarted(number, plan) for number in set(older.values())}
        return frozenset(name for name, number in older.items() if name in restarts[number])

    def wanted(self) -> list[int]:
        """The numbers of revisions that are not known and have to be put."""
        with self._lock:
            return sorted(self._wanted)

    def put(self, number: int, topology: Topology) -> None:
        with self._lock:
            self._wanted.discard(number)
            if len(self._known) >= _MOST:
                del self._known[min(self._known)]
            self._known[number] = topology

    def _restarted(self, number: int, plan: ClusterPlan) -> frozenset[str]:
        key = (number, plan.revision)
        with self._lock:
            if key in self._found:
                return self._found[key]
            before = self._known.get(number)
            if before is None and number == self._start.revision:
                before = from_dict(dict(self._start.settings))
            if before is None:
                self._wanted.add(number)
                return frozenset()
        after = from_dict(dict(plan.settings))
        found = restarted(before, after)
        with self._lock:
            if len(self._found) >= _MOST:
                self._found.clear()
            self._found[key] = found
        return found


def topology_in(revision: Revision) -> Topology:
    """The topology of a revision. Raises ``ValueError`` for one of another version."""
    try:
        return from_dict(revision.settings)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"revision {revision.number} is of another version of the mesh: {error!r}") from error
