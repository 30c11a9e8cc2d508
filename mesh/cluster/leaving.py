"""Which nodes that the plan lacks may stop, and why the others stay.

Knows plans, what the controller has seen of the nodes, and counts of the map by edge; never etcd itself. What always
holds: an edge is stopped only when a count of the map has found no vehicle of it, and that count began when every node
that serves had followed settings without this edge for so long that no earlier claim could be under way; a vehicle may
have come to it after ``mesh up`` counted. A core is stopped only when it says that it has no session and no message.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol, final

from mesh.cluster import host
from mesh.cluster.host import Report
from mesh.cluster.node import CONSOLE, CORE, DOOR, ETCD
from mesh.cluster.plan import ClusterPlan
from mesh.figures.node import NodeStatus
from mesh.figures.status import readings

# Seconds from the last node's change of the settings to the count: a claim has a deadline of 3 s, and etcd may carry it
# out some seconds after that.
CLAIMS: Final = 10.0

# Seconds between two counts of an edge that has vehicles: each reads the whole map.
_AGAIN: Final = 30.0

_SPOOLED: Final = "mesh_link_spool_messages"


class View(Protocol):
    """What is known of one node."""

    @property
    def report(self) -> Report | None: ...
    @property
    def state(self) -> str: ...


def followed(plan: ClusterPlan, seen: Mapping[str, View]) -> bool:
    """Whether every planned node that serves follows the plan's settings."""
    return not _behind(plan, seen)


def _behind(plan: ClusterPlan, seen: Mapping[str, View]) -> list[str]:
    behind = []
    for node in plan.nodes:
        it = seen.get(node.name)
        if it is not None and node.role != ETCD and it.state == host.READY and it.report is not None:
            status = it.report.status
            if (status.revision or it.report.begun) < plan.revision:
                behind.append(node.name)
    return behind


def owns(it: View, vehicles: int | None) -> int | None:
    """What a node that is to stop owns; ``None``: not known yet. ``vehicles``: the count of the map."""
    role = "" if it.report is None else it.report.role
    if role in (DOOR, CONSOLE, ETCD):
        return 0
    if role == CORE and it.report is not None:
        return _kept(it.report.status) if it.state == host.READY else None
    return vehicles  # an edge, or a node that has not said what it is


def _kept(status: NodeStatus) -> int:
    """The sessions of a core and its messages for edges."""
    values = (reading.value for reading in readings(status) if reading.instrument.name == _SPOOLED)
    return status.sessions + sum(int(value) for value in values if isinstance(value, int | float))


def reason(plan: ClusterPlan, seen: Mapping[str, View], it: View, owned: int | None) -> str:
    """Why a node that the plan lacks is still there, in one sentence."""
    gone = "no longer in the topology"
    if it.state == host.STOPPING or owned == 0:
        return gone
    if owned is None:
        behind = _behind(plan, seen)
        if behind:
            waits = f"{', '.join(behind)} to follow revision {plan.revision}"
        elif it.report is not None and it.report.role == CORE:
            waits = "it to serve and say what it keeps; if it cannot, add it to the file again"
        else:
            waits = "a count of its vehicles"
        return f"{gone}: waits for {waits}"
    if it.report is not None and it.report.role == CORE:
        return f"{gone}, but has {owned} sessions and messages, and stays until they are gone: add it to the file again"
    return (
        f"{gone}, but owns {owned} vehicles, and stays for them: add it to a pool again, with weight: 0 so that no new "
        "vehicle goes there"
    )


@final
class Counts:
    """The vehicles of edges that are to stop. The controller asks for them; the thread that follows the settings counts
    (``following``). Any thread may call the methods."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}  # the edges that are asked for, and since when
        self._found: dict[str, tuple[float, int]] = {}  # when the count began, and its result

    def __call__(self, names: Iterable[str]) -> Mapping[str, int]:
        """The counts that began after these names were asked for. The names of the last call are those asked for."""
        now = self._clock()
        with self._lock:
            self._since = {name: self._since.get(name, now) for name in names}
            self._found = {name: found for name, found in self._found.items() if name in self._since}
            return {name: count for name, (_, count) in self._found.items()}

    def due(self) -> bool:
        """Whether it is time for a count."""
        now = self._clock()
        with self._lock:
            found = [self._found.get(name) for name in self._since]
        return any(it is None or (it[1] > 0 and now - it[0] > _AGAIN) for it in found)

    def put(self, begun: float, owned: Mapping[str, int], exact: bool) -> None:
        """The result of a count of the whole map that began at ``begun``. Without ``exact`` the numbers are lower
        bounds, and an edge without any vehicle is not known."""
        with self._lock:
            for name, since in self._since.items():
                count = owned.get(name, 0)
                if begun >= since and (exact or count):
                    self._found[name] = (begun, count)
