"""Reconciliation: compares the plan with the nodes that run.

Knows plans, reports and a ``Runtime`` that carries out single steps; never knows Ray itself, sockets or files. What
always holds:

* ``decide`` is a pure function; if a step is repeated or lost, the next round reaches the same state;
* the controller remembers nothing that it cannot observe again, so a new one can replace it at any time, also in the
  midst of a rolling change: each node reports the revision that it was started with, and whether it is stopping;
* a node is told to start when every node of the earlier stages is ready, or the mesh has been ready once; a node with
  a damaged journal, which stays down until an operator acts, holds up no other;
* a node that is ready is not touched, unless a rolling change restarts it (``rolling``) or its plan lacks it;
* a node is removed or restarted only for a plan that etcd has in force, while it answers, and is not created for one
  that may be older than that;
* a node that the plan lacks stays while it owns vehicles or sessions (``leaving``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol, final

from mesh.cluster import host, leaving, rolling
from mesh.cluster.host import Report
from mesh.cluster.node import ETCD
from mesh.cluster.plan import LOCAL, ClusterPlan, PlannedNode
from mesh.cluster.status import DEGRADED, NodeRow, Snapshot
from mesh.figures.node import NodeStatus
from mesh.figures.status import by_series

ABSENT: Final = "absent"
"""The node has no process yet."""
LOST: Final = "lost"
"""The node's process has ended; Ray is restarting it."""

# Seconds that a process whose event loop hangs has to end itself (``host.HUNG_AFTER``) before it is killed: it leaves a
# report, and a kill leaves none.
TOO_LATE: Final = 10.0
# Seconds without any answer from the process; Ray itself reports a dead process within two seconds. A process that
# hangs in compiled code cannot answer, but ends itself. So this is for a process that is stopped, and long, because Ray
# may be slow.
SILENT_AFTER: Final = 60.0


# Ray starts a process within a few seconds. If it takes longer, no machine has the resources that the node asks for.
NO_PLACE_AFTER: Final = 15.0


# Of nodes, by the revisions with which they were started, those that the plan restarts.
Behind = Callable[[Mapping[str, int], ClusterPlan], frozenset[str]]

# The numbers of vehicles of edges, of those that were counted since they were asked for (``leaving.Counts``).
Count = Callable[[Iterable[str]], Mapping[str, int]]

# Seconds for all nodes to confirm a revision before the first one is restarted for it, and how long they have confirmed
# it then: 'mesh up' looks more often. A restart may help a node that cannot take the revision while it runs.
_CONFIRM: Final = 10.0
_CONFIRMED: Final = 1.0

# Seconds for a controller that Ray restarted to learn the settings in force, before it creates a node.
PATIENCE: Final = 10.0


class Kind(Enum):
    CREATE = "create"
    BEGIN = "begin"
    RESTART = "restart"
    """Kill the process of a node that does not answer."""
    FINISH = "finish"
    """Stop the node in order. When it has stopped, it is removed; if it is planned, it is created again."""
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do for one node; ``why`` is for the log; ``grace`` are the seconds that it has to stop."""

    kind: Kind
    name: str
    why: str = ""
    grace: float = 0.0


@dataclass(frozen=True, slots=True)
class Knowledge:
    """``opened``: the mesh has been ready once. ``current``: etcd answers, and has the plan's settings in force;
    ``newest``: there are no newer ones, as far as can be known. ``behind``: the nodes that a rolling change has to
    restart. ``owned``: what each node that the plan lacks owns, ``None`` if that is not known."""

    opened: bool = False
    current: bool = True
    newest: bool = True
    behind: Set[str] = frozenset()
    owned: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(slots=True)
class Seen:
    """What the controller knows about one node. Times are of its clock; ``changed``: when the state last changed;
    ``metrics``: the address of its metrics, kept while the node does not run, so that Prometheus shows it as down."""

    report: Report | None = None
    state: str = ABSENT
    heard: float = 0.0
    changed: float = 0.0
    note: str = ""
    metrics: str = ""


class Runtime(Protocol):
    """Single steps. Each returns soon. Raises ``OSError`` or ``RuntimeError`` with one clear sentence."""

    def names(self) -> set[str]:
        """All nodes that exist, in any state."""

    def reports(self, names: Iterable[str]) -> Mapping[str, Report | None]:
        """The nodes' reports: ``None`` for a node whose process has ended; no entry for a node that has not answered
        yet."""

    def create(self, node: PlannedNode, plan: ClusterPlan) -> None:
        """Create a process for this node; keep it if it exists."""

    def begin(self, name: str) -> None:
        """Tell the node to start."""

    def restart(self, name: str) -> None:
        """Kill the node's process; Ray restarts it."""

    def finish(self, name: str, grace: float) -> None:
        """Tell the node to stop within ``grace`` seconds."""

    def end(self, names: Iterable[str], grace: float) -> None:
        """Stop nodes at the same time, within ``grace`` seconds, and wait until they have stopped."""

    def remove(self, name: str) -> None:
        """Kill the node's process for good."""


def decide(plan: ClusterPlan, seen: Mapping[str, Seen], now: float, knowledge: Knowledge) -> list[Step]:
    """The next steps. ``seen`` has every node that exists or is planned."""
    steps = []
    unready = {node.stage for node in plan.nodes if seen[node.name].state not in rolling.SETTLED}
    first = min(unready, default=0)
    for node in plan.nodes:
        it = seen[node.name]
        if it.state == ABSENT:
            # The settings in force may be in the mesh's own etcd, which is one of its nodes.
            if knowledge.newest or node.role == ETCD:
                steps.append(Step(Kind.CREATE, node.name))
        elif it.state == host.HELD and (knowledge.opened or node.stage <= first):
            steps.append(Step(Kind.BEGIN, node.name))
        elif it.state == host.STOPPED:
            steps.append(Step(Kind.REMOVE, node.name, "it has stopped, and is created again"))
        elif why := _hung(it, now):
            steps.append(Step(Kind.RESTART, node.name, why))
    if not knowledge.current:
        return steps  # nodes need etcd to start again
    steps += _retirements(plan, seen, now, knowledge.owned)
    due = rolling.next_restart(plan, seen, knowledge.behind)
    if due is not None and not steps:
        why = f"revision {plan.revision} restarts it"
        steps.append(Step(Kind.FINISH, due.name, why, rolling.grace(plan, seen, due.name)))
    return steps


def _retirements(
    plan: ClusterPlan, seen: Mapping[str, Seen], now: float, owned: Mapping[str, int | None]
) -> list[Step]:
    """The steps for nodes that are no longer planned. Those that serve stop in order before they are removed."""
    steps = []
    planned = {node.name for node in plan.nodes}
    for name in sorted(seen.keys() - planned):
        it = seen[name]
        if it.report is None and now - it.changed < SILENT_AFTER:
            continue  # it may serve
        if it.state == host.STOPPING:
            if why := _hung(it, now):
                steps.append(Step(Kind.REMOVE, name, why))
        elif it.state != host.STOPPED and owned.get(name) != 0:
            continue
        elif it.state in (host.READY, host.STARTING):
            why = "no longer in the topology"
            steps.append(Step(Kind.FINISH, name, why, rolling.grace(plan, seen, name)))
        else:
            steps.append(Step(Kind.REMOVE, name, "no longer in the topology"))
    return steps


def _hung(it: Seen, now: float) -> str:
    """Why this node must be killed; empty if it must not."""
    silent = now - max(it.heard, it.changed)
    if it.state in (ABSENT, LOST) or it.report is None:
        return ""
    hung = (host.HUNG_LOADING if it.state in host.RECOVERING else host.HUNG_AFTER) + TOO_LATE
    if silent > max(SILENT_AFTER, hung):
        return f"its process has not answered for {silent:.0f} s"
    lag = it.report.lag
    if lag > hung:
        return f"its event loop has not run for {lag:.0f} s"
    return ""


@final
class Controller:
    """The loop around ``decide``. One thread calls ``tick``; any thread may call the other methods."""

    def __init__(
        self,
        plan: ClusterPlan,
        runtime: Runtime,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str], None] = lambda line: None,
        behind: Behind = lambda begun, plan: frozenset(),
        patience: float = 0.0,
        warnings: tuple[str, ...] = (),
        count: Count = lambda names: dict.fromkeys(names, 0),
    ) -> None:
        """``behind`` tells which nodes the plan restarts; ``patience``: seconds to learn the settings in force before
        nodes are created; ``warnings`` are shown with the status; ``count`` counts vehicles."""
        self._warnings = warnings
        self.plan = plan
        self._behind = behind
        self._count = count
        self._unfollowed = clock()  # when a node that serves was last known not to follow the plan's settings
        self._revised = clock()  # when the plan came
        self._owned: dict[str, int | None] = {}
        self._patient = clock() + patience
        self._asked = False  # whether etcd has said what is in force
        self._current = False
        self._runtime = runtime
        self._clock = clock
        self._tell = tell
        self._seen = {node.name: Seen(changed=clock()) for node in plan.nodes}
        self._restarting: frozenset[str] = frozenset()
        self._unread: list[str] = []
        self._opened = False
        self._stopping = threading.Event()
        self._turn = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether every planned node serves."""
        return all(self._seen.get(node.name, _NOTHING).state == host.READY for node in self.plan.nodes)

    @property
    def settled(self) -> bool:
        """Whether every planned node serves, or stays down until an operator acts."""
        return all(self._seen.get(node.name, _NOTHING).state in rolling.SETTLED for node in self.plan.nodes)

    @property
    def calm(self) -> bool:
        """Whether nothing is about to happen: every planned node is settled, or takes its time to stop."""
        now = self._clock()
        seen = (self._seen.get(node.name, _NOTHING) for node in self.plan.nodes)
        return all(
            it.state in rolling.SETTLED or (it.state == host.STOPPING and now - it.changed > _SLOW) for it in seen
        )

    @property
    def restarts(self) -> int:
        """The restarts of all nodes."""
        return sum(it.report.restarts for it in self._seen.values() if it.report is not None)

    def follow(self, plan: ClusterPlan, current: bool) -> None:
        """Act on this plan from now on. ``current``: etcd answers, and has its settings in force; without it etcd has
        none, or older ones."""
        with self._turn:
            if plan.revision >= self.plan.revision:
                if plan.revision > self.plan.revision:
                    self._unfollowed = self._revised = self._clock()
                self._asked, self._current, self.plan = True, current, plan
                for node in plan.nodes:
                    self._seen.setdefault(node.name, Seen(changed=self._clock()))
                self._unread = []

    def tick(self) -> None:
        """Look at all nodes once, and carry out the next steps."""
        with self._turn:
            if not self._stopping.is_set():
                self._act(self._names())

    def glance(self, parts: int) -> bool:
        """Look at the next of ``parts`` shares of the nodes, and carry out the next steps. ``True``: it was the last
        share. A whole round takes some milliseconds of a processor that the nodes use; in parts, a mesh that is ready
        has shorter pauses."""
        with self._turn:
            if self._stopping.is_set():
                return True
            if not self._unread:
                self._unread = sorted(self._names())
            share = -(-len(self._seen) // parts)
            these, self._unread = self._unread[:share], self._unread[share:]
            # A node may have been retired since the names were read.
            self._act([name for name in these if name in self._seen])
            return not self._unread

    def stop(self, grace: float) -> None:
        """Stop all nodes, the last stage first, and remove them. Each stage gets ``grace`` seconds."""
        self._stopping.set()
        with self._turn:
            names = self._runtime.names()
            for stage in sorted({node.stage for node in self.plan.nodes}, reverse=True):
                these = [node.name for node in self.plan.nodes if node.stage == stage and node.name in names]
                for name in these:
                    self._set(name, host.STOPPING)
                self._runtime.end(these, grace)
                for name in these:
                    self._runtime.remove(name)
                    self._set(name, host.STOPPED)
            for name in names.difference(node.name for node in self.plan.nodes):
                self._runtime.remove(name)

    def snapshot(self) -> Snapshot:
        """The state of the mesh, of all planned nodes, and of those that the plan lacks and that are still there."""
        plan, seen = self.plan, dict(self._seen)
        leave = [(name, it) for name, it in sorted(seen.items()) if plan.node(name) is None]
        planned = [self._row(node, seen.get(node.name, _NOTHING)) for node in plan.nodes]
        others = [self._row(PlannedNode(name, "" if it.report is None else it.report.role), it) for name, it in leave]
        return Snapshot(plan.mesh, self._state(), (*planned, *others), warnings=self._warnings)

    def _state(self) -> str:
        if self._stopping.is_set():
            return host.STOPPING
        if self.ready:
            return host.READY
        return DEGRADED if self.settled else host.STARTING

    def _names(self) -> set[str]:
        """The names of the nodes that exist. Planned nodes that do not exist are marked as absent."""
        now = self._clock()
        there = self._runtime.names()
        for name in there.union(node.name for node in self.plan.nodes):
            self._seen.setdefault(name, Seen(changed=now))
        for name in list(self._seen):
            if name not in there:
                if self.plan.node(name) is None:
                    del self._seen[name]
                else:
                    self._set(name, ABSENT)
        return there

    def _act(self, names: Iterable[str]) -> None:
        now = self._clock()
        for name, report in self._runtime.reports(names).items():
            if report is None:
                self._set(name, LOST)
            else:
                self._hear(name, report, now)
        self._opened = self._opened or self.settled
        begun = {
            name: it.report.begun
            for name, it in self._seen.items()
            if it.state == host.READY and it.report is not None
        }
        self._restarting = self._behind(begun, self.plan)
        self._owned = self._ownership(now)
        newest = self._asked or now >= self._patient
        told = now - self._unfollowed >= _CONFIRMED or now - self._revised >= _CONFIRM
        behind = self._restarting if told else frozenset[str]()
        knowledge = Knowledge(self._opened, self._current, newest, behind, self._owned)
        for step in decide(self.plan, self._seen, now, knowledge):
            self._do(step)

    def _ownership(self, now: float) -> dict[str, int | None]:
        """What each node that the plan lacks owns; ``None``: not known yet."""
        if not leaving.followed(self.plan, self._seen):
            self._unfollowed = now
        gone = {name: it for name, it in self._seen.items() if self.plan.node(name) is None}
        edges = [name for name, it in gone.items() if leaving.owns(it, None) is None]
        counts = self._count(edges if now - self._unfollowed >= leaving.CLAIMS else ())
        return {name: leaving.owns(it, counts.get(name)) for name, it in gone.items()}

    def _hear(self, name: str, report: Report, now: float) -> None:
        it = self._seen[name]
        if it.report is not None and it.report.pid != report.pid:
            it.changed = now
            self._tell(f"{name} restarted as process {report.pid}")
        it.report, it.heard, it.note = report, now, ""
        if report.state == host.READY:  # while it restarts, it is expected where it was
            it.metrics = report.status.metrics
        self._set(name, report.state, report.error)

    def _set(self, name: str, state: str, error: str = "") -> None:
        it = self._seen[name]
        if it.state != state:
            it.state, it.changed = state, self._clock()
            self._tell(f"{name} is {state}" + (f": {error}" if error else ""))

    def _do(self, step: Step) -> None:
        if step.why:
            self._tell(f"{step.kind.value} {step.name}: {step.why}")
        it = self._seen[step.name]
        try:
            if step.kind is Kind.CREATE:
                node = self.plan.node(step.name)
                assert node is not None, "only planned nodes are created"
                self._runtime.create(node, self.plan)
                self._set(step.name, LOST)
            elif step.kind is Kind.BEGIN:
                self._runtime.begin(step.name)
            elif step.kind is Kind.RESTART:
                self._runtime.restart(step.name)
                it.heard = self._clock()
                self._set(step.name, LOST)
            elif step.kind is Kind.FINISH:
                self._runtime.finish(step.name, step.grace)
                self._set(step.name, host.STOPPING)
            else:
                self._runtime.remove(step.name)
                self._set(step.name, ABSENT)
                if self.plan.node(step.name) is None:
                    del self._seen[step.name]
        except (OSError, RuntimeError) as error:
            it.note = host.sentence(error)  # the next round tries again

    def _row(self, node: PlannedNode, it: Seen) -> NodeRow:
        report = it.report or Report(it.state, 0)
        gone = it.state in (ABSENT, LOST, host.STOPPED)
        untold = gone or node.role == ETCD  # etcd has no settings of the mesh
        status = report.status if it.state in (host.READY, host.STOPPING) else NodeStatus()
        return NodeRow(
            name=node.name,
            role=node.role,
            state=_WORDS.get(it.state, it.state),
            pid=0 if gone else report.pid,
            host=report.host,
            age=0.0 if gone else round(self._clock() - it.heard, 1),
            revision=0 if untold else status.revision or report.begun,
            begun=0 if untold else report.begun,
            listen=node.listens,
            connections=status.connections,
            sessions=status.sessions,
            queued=status.queued,
            restarts=report.restarts,
            attempts=report.attempts,
            uptime=0.0 if gone else round(report.uptime, 1),
            detail=self._detail(node, it, status),
            metrics=it.metrics,
            figures=by_series(status),
        )

    def _detail(self, node: PlannedNode, it: Seen, status: NodeStatus) -> str:
        """One sentence that explains the node's state; empty if it needs no explanation."""
        if it.state in (host.FAILED, host.DAMAGED) and it.report is not None:
            return it.report.error
        if it.state == LOST and self._clock() - it.changed > NO_PLACE_AFTER:
            named = node.resources and self.plan.ray != LOCAL
            asks = f", which asks for {dict(node.resources)}" if named else ""
            return f"Ray has not started its process for {self._clock() - it.changed:.0f} s{asks}"
        if it.state == host.HELD and not self._opened:
            before = [
                other.name
                for other in self.plan.nodes
                if other.stage < node.stage and self._seen.get(other.name, _NOTHING).state not in rolling.SETTLED
            ]
            return f"waits for {', '.join(before)}" if before else ""
        if self.plan.node(node.name) is None:
            return it.note or leaving.reason(self.plan, self._seen, it, self._owned.get(node.name))
        restart = ""
        if node.name in self._restarting:
            waits = rolling.obstacle(self.plan, self._seen) if self._current else "etcd"
            restart = f"revision {self.plan.revision} restarts it" + (f", waits for {waits}" if waits else "")
        return it.note or "; ".join(part for part in (restart, status.detail) if part)


_NOTHING: Final = Seen()

# Seconds after which a node that stops is a front door that sends its connections away.
_SLOW: Final = 2.0

# The user sees both states without a process as "starting".
_WORDS: Final = {ABSENT: host.STARTING, LOST: host.STARTING, host.HELD: host.STARTING}
