"""Rolling changes against a cluster in memory: one node after another, whatever happens in between."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import pytest

from mesh.cluster import host
from mesh.cluster.controller import Controller
from mesh.cluster.plan import ClusterPlan, PlannedNode
from mesh.cluster.rolling import GRACE
from mesh.cluster.status import NodeRow
from mesh.figures.node import NodeStatus
from mesh.transport.status import TIER, LinkStatus
from tests.cluster.meshes import fake_plan
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import FakeRuntime

ROLES = {"edge-1": "edge", "edge-2": "edge", "core": "core", "core-2": "core", "door": "door", "door-2": "door"}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Linked(NodeStatus):
    links: tuple[LinkStatus, ...]


@final
class Mesh:
    """Nodes that stop and link up in their own time. ``most``: the most nodes that were away at once."""

    def __init__(self, folder: Path) -> None:
        base = fake_plan(folder, names=("edge-1", "core"))
        self.plan = replace(base, revision=1, nodes=tuple(PlannedNode(name, role) for name, role in ROLES.items()))
        self.runtime = FakeRuntime()
        self.clock = FakeClock(1000.0)
        self.restarts = frozenset(ROLES)
        self.stopping = 1.0
        self.unlinked = ""
        self.slow = ""
        self.connections = 0
        self.since: dict[str, float] = {}
        self.most = 0
        self.states: dict[str, str] = {}
        self.opened = False
        self.controller = self.start()

    def start(self) -> Controller:
        return Controller(self.plan, self.runtime, self.clock, behind=self.behind)

    def behind(self, begun: Mapping[str, int], plan: ClusterPlan) -> frozenset[str]:
        return frozenset(name for name, number in begun.items() if number < plan.revision and name in self.restarts)

    def step(self) -> None:
        self.controller.tick()
        self.clock.now += 0.5
        self.pass_time()

    def pass_time(self) -> None:
        now, runtime = self.clock.now, self.runtime
        ready = set()
        for name, report in list(runtime.nodes.items()):
            state = "gone" if report is None else f"{report.state} {report.pid}"
            if name not in self.since or self.states.get(name) != state:
                self.since[name], self.states[name] = now, state
            if report is not None and report.state == host.STOPPING and now - self.since[name] >= self.stopping:
                runtime.say(name, host.STOPPED)
            if report is not None and report.state == host.READY:
                ready.add(name)
        edges = [name for name in ready if name.startswith("edge")]
        linked = [name for name in edges if name != self.unlinked and now - self.since[name] >= 3.0]
        for name in ready:
            links: NodeStatus = NodeStatus(connections=self.connections, revision=self.follows(name))
            if not name.startswith("edge"):
                up = [LinkStatus(TIER, f"edge-{number}", f"edge-{number}" in linked) for number in (1, 2)]
                links = Linked(links=tuple(up), connections=self.connections, revision=self.follows(name))
            runtime.say(name, host.READY, status=links)
        unlinked = [name for name in ROLES if name not in ready or (name.startswith("edge") and name not in linked)]
        if self.opened:
            self.most = max(self.most, len(unlinked))

    def follows(self, name: str) -> int:
        return 1 if name == self.slow else self.plan.revision

    def open(self) -> None:
        while not (self.controller.ready and all(self.clock.now - at > 10 for at in self.since.values())):
            self.step()
        self.opened = True
        self.runtime.steps.clear()

    def change(self, revision: int = 2, over: float = 0.0) -> None:
        self.pass_time()
        self.plan = replace(self.plan, revision=revision, over=over)
        self.controller.follow(self.plan, current=True)

    @property
    def done(self) -> bool:
        nodes = self.runtime.nodes
        begun = {name: report.begun for name, report in nodes.items() if report is not None}
        return self.controller.ready and not self.behind(begun, self.plan) and set(nodes) == set(ROLES)

    def settle(self, seconds: float = 600.0) -> None:
        end = self.clock.now + seconds
        while not self.done:
            self.step()
            assert self.clock.now < end, self.runtime.steps

    def row(self, name: str) -> NodeRow:
        return next(row for row in self.controller.snapshot().nodes if row.name == name)

    def finished(self) -> list[str]:
        return [step.split()[1] for step in self.runtime.steps if step.startswith("finish")]


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    mesh = Mesh(tmp_path)
    mesh.open()
    return mesh


def test_the_nodes_are_restarted_one_after_another(mesh: Mesh) -> None:
    mesh.change()
    mesh.settle()
    assert mesh.finished() == list(ROLES)
    assert mesh.most == 1
    assert [step for step in mesh.runtime.steps if "edge-1" in step] == [
        f"finish edge-1 {GRACE:g}", "remove edge-1", "create edge-1", "begin edge-1"
    ]  # fmt: skip


def test_no_node_is_restarted_before_all_have_had_time_to_confirm_the_revision(mesh: Mesh) -> None:
    """A confirmation ends with its node's process: ``mesh up`` would miss it."""
    mesh.slow = "core"
    mesh.change()
    for _ in range(8):
        mesh.step()
    assert mesh.finished() == []
    mesh.slow = ""
    for _ in range(4):
        mesh.step()
    assert mesh.finished() == ["edge-1"]


def test_a_node_that_does_not_confirm_the_revision_does_not_stop_the_restarts(mesh: Mesh) -> None:
    mesh.slow = "core"
    mesh.change()
    for _ in range(30):
        mesh.step()
    assert mesh.finished()[0] == "edge-1"


def test_only_the_nodes_that_the_change_restarts_are_restarted(mesh: Mesh) -> None:
    mesh.restarts = frozenset({"core-2"})
    mesh.change()
    mesh.settle()
    assert mesh.finished() == ["core-2"]
    for _ in range(100):
        mesh.step()
    assert mesh.finished() == ["core-2"]


def test_the_next_node_waits_for_the_links_of_the_last(mesh: Mesh) -> None:
    mesh.change()
    while not mesh.finished():
        mesh.step()
    mesh.unlinked = "edge-1"
    for _ in range(200):
        mesh.step()
    assert mesh.finished() == ["edge-1"]
    assert mesh.row("edge-2").detail == "revision 2 restarts it, waits for the links of core to edge-1"
    mesh.unlinked = ""
    mesh.settle()
    assert mesh.finished() == list(ROLES)


def test_the_next_node_waits_for_one_that_does_not_start(mesh: Mesh) -> None:
    begin = mesh.runtime.begin
    mesh.runtime.begin = lambda name: mesh.runtime.say(name, host.FAILED, error="port 1 is in use")  # type: ignore[method-assign]
    mesh.change()
    for _ in range(200):
        mesh.step()
    assert mesh.finished() == ["edge-1"]
    assert mesh.row("edge-2").detail == "revision 2 restarts it, waits for edge-1 to be ready"
    assert mesh.row("edge-1").detail == "port 1 is in use"
    mesh.runtime.begin = begin  # type: ignore[method-assign]
    mesh.runtime.say("edge-1", host.READY)
    mesh.settle()


def test_a_killed_controller_is_continued_by_the_next(mesh: Mesh) -> None:
    """At every moment of a rolling change; the next one begins with the plan of the start of the mesh."""
    first = mesh.plan
    mesh.change()
    newest = mesh.plan
    while not mesh.done:
        mesh.controller = Controller(first, mesh.runtime, mesh.clock, behind=mesh.behind, patience=10.0)
        mesh.controller.follow(newest, current=True)
        for _ in range(6):
            mesh.step()
        assert mesh.clock.now < 10_000
    assert mesh.finished() == list(ROLES)
    assert mesh.most == 1


@pytest.mark.parametrize("seed", range(5))
def test_nodes_that_are_killed_in_between_are_restarted_and_the_change_is_finished(mesh: Mesh, seed: int) -> None:
    chance = random.Random(seed)
    mesh.change()
    for _ in range(60):
        mesh.step()
        if chance.random() < 0.2:
            victim = chance.choice(list(mesh.runtime.nodes))
            if chance.random() < 0.5:
                mesh.runtime.nodes[victim] = None
                mesh.controller.tick()
            if victim in mesh.runtime.nodes:
                mesh.runtime.come(victim, host.READY)
    mesh.settle()
    assert all(report is not None and report.begun == 2 for report in mesh.runtime.nodes.values())


def test_a_later_revision_takes_over_in_the_midst(mesh: Mesh) -> None:
    mesh.change()
    for _ in range(20):
        mesh.step()
    mesh.change(3)
    mesh.settle()
    assert {report.begun for report in mesh.runtime.nodes.values() if report is not None} == {3}
    assert mesh.most == 1


def test_no_node_is_restarted_while_etcd_does_not_answer(mesh: Mesh) -> None:
    """It could not start again."""
    mesh.change()
    mesh.controller.follow(mesh.plan, current=False)
    for _ in range(50):
        mesh.step()
    assert mesh.runtime.steps == []
    assert mesh.row("core").detail == "revision 2 restarts it, waits for etcd"
    mesh.controller.follow(mesh.plan, current=True)
    mesh.settle()


def test_a_node_with_a_damaged_journal_holds_up_no_restart(mesh: Mesh) -> None:
    mesh.runtime.come("edge-2", host.DAMAGED)
    mesh.restarts -= {"edge-2"}
    mesh.change()
    for _ in range(400):
        mesh.step()
    assert mesh.finished() == ["edge-1", "core", "core-2", "door", "door-2"]


def test_a_front_door_gets_time_for_its_connections(mesh: Mesh) -> None:
    mesh.connections = 4000
    mesh.restarts = frozenset({"door"})
    mesh.change(over=600.0)
    for _ in range(20):
        mesh.step()
    assert "finish door 80" in mesh.runtime.steps


def test_a_front_door_that_takes_its_time_makes_the_controller_no_work(mesh: Mesh) -> None:
    mesh.stopping = 60.0
    mesh.restarts = frozenset({"door"})
    mesh.change()
    while "finish door" not in " ".join(mesh.runtime.steps):
        mesh.step()
    assert not mesh.controller.calm, "most nodes stop within a moment, and their successors should be quick"
    for _ in range(10):
        mesh.step()
    assert (mesh.controller.calm, mesh.controller.settled) == (True, False)


def test_the_status_shows_the_connections_that_a_front_door_still_has(mesh: Mesh) -> None:
    mesh.stopping = 60.0
    mesh.restarts = frozenset({"door"})
    mesh.change()
    while "finish door" not in " ".join(mesh.runtime.steps):
        mesh.step()
    mesh.runtime.say("door", host.STOPPING, status=NodeStatus(connections=123, revision=2))
    mesh.controller.tick()
    row = mesh.row("door")
    assert (row.state, row.connections, row.revision) == (host.STOPPING, 123, 2)


def test_the_time_of_a_front_door_is_bounded(mesh: Mesh) -> None:
    mesh.connections = 4_000_000
    mesh.restarts = frozenset({"door"})
    mesh.change(over=600.0)
    for _ in range(20):
        mesh.step()
    assert "finish door 1200" in mesh.runtime.steps


def test_the_only_front_door_is_quick(mesh: Mesh) -> None:
    """Its vehicles have nowhere to go until it is back."""
    mesh.connections = 4000
    mesh.restarts = frozenset({"door"})
    mesh.plan = replace(mesh.plan, nodes=tuple(node for node in mesh.plan.nodes if node.name != "door-2"))
    mesh.change(over=600.0)
    for _ in range(20):
        mesh.step()
    assert f"finish door {GRACE:g}" in mesh.runtime.steps


def test_a_removed_front_door_sends_its_connections_away(mesh: Mesh) -> None:
    mesh.connections = 4000
    mesh.restarts = frozenset()
    mesh.plan = replace(mesh.plan, nodes=tuple(node for node in mesh.plan.nodes if node.name != "door-2"))
    mesh.change(over=600.0)
    for _ in range(20):
        mesh.step()
    assert mesh.runtime.steps == ["finish door-2 80", "remove door-2"]
