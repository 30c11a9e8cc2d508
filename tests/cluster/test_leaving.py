"""Nodes that the plan lacks stay while they own vehicles or sessions: a vehicle may come between count and commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import final

import pytest

from mesh.cluster import host
from mesh.cluster.controller import Controller
from mesh.cluster.leaving import CLAIMS, Counts
from mesh.cluster.plan import ClusterPlan, PlannedNode
from mesh.cluster.status import NodeRow
from mesh.figures.node import NodeStatus
from tests.cluster.meshes import fake_plan
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import FakeRuntime

ROLES = {"edge-1": "edge", "edge-2": "edge", "core": "core", "core-2": "core", "door": "door"}


@final
class Mesh:
    """All nodes are ready and follow revision 1. ``vehicles``: what a count finds; ``None``: it does not end."""

    def __init__(self, folder: Path) -> None:
        nodes = tuple(PlannedNode(name, role) for name, role in ROLES.items())
        self.plan: ClusterPlan = replace(fake_plan(folder), revision=1, nodes=nodes)
        self.runtime, self.clock = FakeRuntime(), FakeClock(1000.0)
        self.vehicles: dict[str, int] | None = {}
        self.asked: set[str] = set()
        self.controller = Controller(self.plan, self.runtime, self.clock, count=self.count)
        self.rounds(5)
        assert self.controller.ready
        self.runtime.steps.clear()

    def count(self, names: Iterable[str]) -> Mapping[str, int]:
        self.asked |= set(names)
        return {} if self.vehicles is None else {name: self.vehicles.get(name, 0) for name in names}

    def remove(self, *gone: str) -> None:
        kept = tuple(node for node in self.plan.nodes if node.name not in gone)
        self.plan = replace(self.plan, revision=self.plan.revision + 1, nodes=kept)
        self.controller.follow(self.plan, current=True)

    def take(self, *names: str) -> None:
        """Nodes follow the newest revision from now on."""
        for name in names:
            self.runtime.say(name, host.READY, status=NodeStatus(revision=self.plan.revision))

    def rounds(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.controller.tick()
            self.clock.now += 0.5

    def detail(self, name: str) -> str:
        return self.row(name).detail

    def row(self, name: str) -> NodeRow:
        return next(row for row in self.controller.snapshot().nodes if row.name == name)


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


def test_an_edge_that_got_a_vehicle_before_the_commit_stays_and_the_status_says_so(mesh: Mesh) -> None:
    mesh.vehicles = {"edge-2": 3}
    mesh.remove("edge-2")
    mesh.take(*ROLES)
    mesh.rounds(60.0)
    assert mesh.runtime.steps == []
    assert (mesh.row("edge-2").state, mesh.row("edge-2").role) == (host.READY, "edge")
    assert mesh.detail("edge-2") == (
        "no longer in the topology, but owns 3 vehicles, and stays for them: add it to a pool again, with weight: 0 so "
        "that no new vehicle goes there"
    )
    mesh.vehicles = {}
    mesh.rounds(2.0)
    assert "finish edge-2" in " ".join(mesh.runtime.steps)


def test_an_edge_is_counted_when_all_nodes_follow_the_settings_without_it(mesh: Mesh) -> None:
    mesh.remove("edge-2")
    mesh.take("edge-1", "edge-2", "core", "core-2")
    mesh.rounds(3 * CLAIMS)
    assert mesh.detail("edge-2") == "no longer in the topology: waits for door to follow revision 2"
    mesh.take("door")
    mesh.rounds(CLAIMS - 1.0)
    assert (mesh.asked, mesh.runtime.steps) == (set(), []), "a claim of the door may still be under way"
    assert mesh.detail("edge-2") == "no longer in the topology: waits for a count of its vehicles"
    mesh.rounds(3.0)
    assert "finish edge-2" in " ".join(mesh.runtime.steps)


def test_an_edge_whose_vehicles_cannot_be_counted_stays(mesh: Mesh) -> None:
    mesh.vehicles = None
    mesh.remove("edge-2")
    mesh.take(*ROLES)
    mesh.rounds(100.0)
    assert mesh.runtime.steps == []
    mesh.vehicles = {}
    mesh.rounds(2.0)
    assert "finish edge-2" in " ".join(mesh.runtime.steps)


@pytest.mark.parametrize("state", [host.FAILED, host.DAMAGED, "lost"])
def test_an_edge_that_does_not_run_and_owns_vehicles_is_not_removed(mesh: Mesh, state: str) -> None:
    mesh.vehicles = {"edge-2": 1}
    if state == "lost":
        mesh.runtime.nodes["edge-2"] = None
    else:
        mesh.runtime.come("edge-2", state)
    mesh.rounds(1.0)
    mesh.remove("edge-2")
    mesh.take("edge-1", "core", "core-2", "door")
    mesh.rounds(120.0)
    assert mesh.runtime.steps == []
    mesh.vehicles = {}
    mesh.rounds(2.0)
    assert "remove edge-2" in mesh.runtime.steps


def test_a_core_with_a_session_of_a_back_end_stays(mesh: Mesh) -> None:
    mesh.remove("core-2")
    mesh.take(*ROLES)
    mesh.runtime.say("core-2", host.READY, status=NodeStatus(revision=2, sessions=1))
    mesh.rounds(60.0)
    assert mesh.runtime.steps == []
    assert mesh.detail("core-2").startswith("no longer in the topology, but has 1 sessions and messages")
    mesh.take("core-2")
    mesh.rounds(2.0)
    assert "finish core-2" in " ".join(mesh.runtime.steps)


def test_an_edge_that_is_added_again_goes_on(mesh: Mesh) -> None:
    before = mesh.plan
    mesh.vehicles = {"edge-2": 3}
    mesh.remove("edge-2")
    mesh.take(*ROLES)
    mesh.rounds(60.0)
    mesh.plan = replace(before, revision=3)
    mesh.controller.follow(mesh.plan, current=True)
    mesh.take(*ROLES)
    mesh.rounds(60.0)
    assert mesh.runtime.steps == []
    assert mesh.detail("edge-2") == ""


def test_only_a_count_that_began_after_the_question_answers_it() -> None:
    clock = FakeClock(10.0)
    counts = Counts(clock)
    assert not counts.due()
    assert counts(["edge-2"]) == {}
    assert counts.due()
    counts.put(9.0, {}, exact=True)
    assert counts(["edge-2"]) == {}
    counts.put(11.0, {"edge-1": 5}, exact=True)
    assert counts(["edge-2"]) == {"edge-2": 0}
    assert not counts.due()
    counts([])
    clock.now = 12.0
    assert counts(["edge-2"]) == {}, "it was added and removed again"


def test_an_edge_with_vehicles_is_counted_again_some_time_later() -> None:
    clock = FakeClock(10.0)
    counts = Counts(clock)
    counts(["edge-2"])
    counts.put(10.0, {"edge-2": 7}, exact=False)
    assert (counts(["edge-2"]), counts.due()) == ({"edge-2": 7}, False)
    clock.now = 60.0
    assert counts.due()


def test_a_count_of_a_part_of_the_map_does_not_say_that_an_edge_has_no_vehicle() -> None:
    counts = Counts(FakeClock(10.0))
    counts(["edge-2"])
    counts.put(10.0, {}, exact=False)
    assert counts(["edge-2"]) == {}


def test_a_core_that_crashed_is_removed_only_when_it_has_said_that_it_keeps_nothing(mesh: Mesh) -> None:
    """A back end may have made its session after 'mesh up' asked the core."""
    mesh.rounds(1.0)
    mesh.runtime.nodes["core-2"] = None
    mesh.rounds(1.0)
    mesh.remove("core-2")
    mesh.take("edge-1", "edge-2", "core", "door")
    mesh.rounds(120.0)
    assert mesh.runtime.steps == []
    mesh.runtime.come("core-2", host.STARTING)
    mesh.rounds(1.0)
    assert mesh.detail("core-2").startswith("no longer in the topology: waits for it to serve")
    mesh.runtime.come("core-2", host.READY)
    mesh.take("core-2")
    mesh.rounds(2.0)
    assert "finish core-2" in " ".join(mesh.runtime.steps)
