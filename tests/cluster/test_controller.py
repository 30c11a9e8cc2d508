"""The controller against a cluster in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cluster import host
from mesh.cluster.controller import (
    NO_PLACE_AFTER,
    PATIENCE,
    SILENT_AFTER,
    TOO_LATE,
    Controller,
    Kind,
    Knowledge,
    Seen,
    decide,
)
from mesh.cluster.etcd import EtcdStatus
from mesh.cluster.host import HUNG_AFTER, HUNG_LOADING
from mesh.cluster.leaving import CLAIMS
from mesh.cluster.plan import ClusterPlan, PlannedNode
from mesh.cluster.status import NodeRow, Snapshot
from mesh.figures.node import NodeStatus
from tests.cluster.meshes import fake_plan
from tests.fakes.clock import FakeClock
from tests.fakes.cluster import FakeRuntime

NAMES = ("edge-1", "edge-2", "core", "door")


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


@pytest.fixture
def plan(tmp_path: Path) -> ClusterPlan:
    return fake_plan(tmp_path, names=NAMES)


@pytest.fixture
def controller(plan: ClusterPlan, runtime: FakeRuntime, clock: FakeClock) -> Controller:
    return Controller(plan, runtime, clock)


def settle(controller: Controller, runtime: FakeRuntime, clock: FakeClock) -> None:
    for _ in range(10):
        controller.tick()
        clock.now += 0.1
    assert controller.ready
    runtime.steps.clear()


def state_of(controller: Controller, name: str) -> NodeRow:
    return next(row for row in controller.snapshot().nodes if row.name == name)


def test_processes_are_created_at_once_and_begin_stage_by_stage(
    controller: Controller, runtime: FakeRuntime
) -> None:
    controller.tick()
    assert runtime.steps == [f"create {name}" for name in NAMES]
    runtime.steps.clear()
    for _ in range(6):
        controller.tick()
    assert runtime.steps == ["begin edge-1", "begin edge-2", "begin core", "begin door"]
    assert controller.ready


def test_a_held_node_shows_the_nodes_it_waits_for(controller: Controller, runtime: FakeRuntime) -> None:
    controller.tick()
    runtime.begin = lambda name: None  # type: ignore[method-assign]
    controller.tick()
    controller.tick()
    assert state_of(controller, "door").state == host.STARTING
    assert state_of(controller, "door").detail == "waits for edge-1, edge-2, core"


def test_a_node_with_a_damaged_journal_holds_up_no_other(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    controller.tick()
    begin = runtime.begin

    def damaged(name: str) -> None:
        begin(name)
        if name == "edge-1":
            runtime.say(name, host.DAMAGED, error="00000007.log: the segment is missing")

    runtime.begin = damaged  # type: ignore[method-assign]
    for _ in range(6):
        controller.tick()
        clock.now += 0.1
    assert [state_of(controller, name).state for name in NAMES] == ["damaged", "ready", "ready", "ready"]
    assert state_of(controller, "edge-1").detail == "00000007.log: the segment is missing"
    assert (controller.ready, controller.settled, controller.snapshot().state) == (False, True, "degraded")
    runtime.steps.clear()
    runtime.say("edge-1", host.DAMAGED, lag=HUNG_AFTER + TOO_LATE + 1)  # it may read a large journal again
    controller.tick()
    assert runtime.steps == []
    runtime.say("edge-1", host.READY)
    controller.tick()
    assert (controller.ready, controller.snapshot().state) == (True, "ready")


def test_a_ready_mesh_gets_no_steps(controller: Controller, runtime: FakeRuntime, clock: FakeClock) -> None:
    settle(controller, runtime, clock)
    for _ in range(100):
        controller.tick()
        clock.now += 1.0
    assert runtime.steps == []


def test_a_restarted_node_begins_while_another_is_lost(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    runtime.nodes["edge-2"] = None
    runtime.come("door", host.HELD)
    controller.tick()
    assert runtime.steps == ["begin door"]
    assert state_of(controller, "edge-2").state == host.STARTING
    assert state_of(controller, "edge-2").pid == 0


def test_restarts_are_counted(controller: Controller, runtime: FakeRuntime, clock: FakeClock) -> None:
    settle(controller, runtime, clock)
    for _ in range(3):
        runtime.nodes["edge-1"] = None
        controller.tick()
        runtime.come("edge-1", host.READY)
        controller.tick()
    assert state_of(controller, "edge-1").restarts == 3
    assert controller.ready


def test_a_successor_shows_the_restarts_before_it(
    plan: ClusterPlan, controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    runtime.come("edge-1", host.READY)
    after = Controller(plan, runtime, clock)
    after.tick()
    assert (state_of(after, "edge-1").restarts, after.restarts) == (1, 1)


def test_an_absent_actor_is_created_again(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    del runtime.nodes["core"]
    controller.tick()
    assert runtime.steps == ["create core"]


def test_a_stuck_loop_is_killed_if_its_process_does_not_end_itself(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    runtime.say("edge-1", host.READY, lag=HUNG_AFTER + 1)  # the process leaves a report if it is not killed
    controller.tick()
    assert runtime.steps == []
    runtime.say("edge-1", host.READY, lag=HUNG_AFTER + TOO_LATE + 1)
    controller.tick()
    assert runtime.steps == ["restart edge-1"]


def test_a_starting_node_has_more_time_before_it_is_killed(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    runtime.come("edge-1", host.STARTING)
    runtime.say("edge-1", host.STARTING, lag=HUNG_AFTER + 30)
    controller.tick()
    assert runtime.steps == []
    runtime.say("edge-1", host.STARTING, lag=HUNG_LOADING + TOO_LATE + 1)
    controller.tick()
    assert runtime.steps == ["restart edge-1"]


def test_a_silent_process_that_starts_has_the_time_of_a_start(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    runtime.come("edge-1", host.STARTING)
    controller.tick()
    runtime.mute.add("edge-1")  # recovery in compiled code lets no other thread run, so nothing can answer
    clock.now += SILENT_AFTER + 1
    controller.tick()
    assert runtime.steps == []
    clock.now += HUNG_LOADING
    controller.tick()
    assert runtime.steps == ["restart edge-1"]


def test_a_silent_process_is_killed_once(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    runtime.mute.add("core")
    clock.now += SILENT_AFTER + 1
    runtime.mute |= {"edge-1"} - {"edge-1"}
    controller.tick()
    controller.tick()
    assert runtime.steps == ["restart core"]


def test_a_failed_node_shows_its_error(controller: Controller, runtime: FakeRuntime, clock: FakeClock) -> None:
    settle(controller, runtime, clock)
    runtime.come("door", host.FAILED)
    runtime.say("door", host.FAILED, error="port 1883 is in use", attempts=3)
    controller.tick()
    row = state_of(controller, "door")
    assert (row.state, row.detail, row.attempts) == ("failed", "port 1883 is in use", 3)
    assert not controller.ready


def test_a_failed_create_is_shown_and_repeated(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    runtime.refuse.add("core")
    controller.tick()
    assert state_of(controller, "core").detail == "there is no machine for core"
    runtime.refuse.clear()
    settle(controller, runtime, clock)


def test_a_node_that_ray_does_not_start_is_explained(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    controller.tick()
    runtime.nodes["edge-1"] = None
    controller.tick()
    clock.now += NO_PLACE_AFTER + 1
    controller.tick()
    assert "has not started its process" in state_of(controller, "edge-1").detail


def test_a_node_no_longer_planned_is_removed(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    runtime.come("old-door", host.READY)
    settle(controller, runtime, clock)
    controller.follow(controller.plan, current=True)
    clock.now += CLAIMS
    controller.tick()
    controller.tick()
    assert runtime.steps == ["finish old-door 5"]
    runtime.say("old-door", host.STOPPED)
    controller.tick()
    assert runtime.steps == ["finish old-door 5", "remove old-door"]
    assert "old-door" not in runtime.nodes


def test_no_node_is_removed_before_etcd_has_said_what_is_in_force(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    """Ray starts a controller again with the plan of the start of the mesh."""
    runtime.come("new-door", host.READY)
    settle(controller, runtime, clock)
    clock.now += 1000.0
    controller.tick()
    controller.follow(controller.plan, current=False)  # etcd has lost its keys
    controller.tick()
    assert runtime.steps == []


def test_a_node_that_is_not_planned_and_not_heard_yet_is_not_killed(
    plan: ClusterPlan, runtime: FakeRuntime, clock: FakeClock
) -> None:
    runtime.come("old-door", host.READY)
    runtime.mute.add("old-door")
    controller = Controller(plan, runtime, clock)
    controller.follow(plan, current=True)
    settle(controller, runtime, clock)
    controller.tick()
    assert runtime.steps == []
    clock.now += SILENT_AFTER
    controller.tick()
    assert runtime.steps == ["remove old-door"]


def test_a_successor_creates_no_node_until_it_knows_what_is_in_force(
    plan: ClusterPlan, controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    runtime.remove("edge-2")  # by a revision that the successor does not know yet
    runtime.steps.clear()
    after = Controller(plan, runtime, clock, patience=PATIENCE)
    after.tick()
    assert runtime.steps == []
    less = replace(plan, revision=2, nodes=tuple(node for node in plan.nodes if node.name != "edge-2"))
    after.follow(less, current=True)
    settle(after, runtime, clock)
    assert "edge-2" not in runtime.nodes


def test_a_successor_without_etcd_goes_on_with_what_it_has(
    plan: ClusterPlan, controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    runtime.remove("edge-2")
    after = Controller(plan, runtime, clock, patience=PATIENCE)
    clock.now += PATIENCE
    settle(after, runtime, clock)
    assert "edge-2" in runtime.nodes


def test_the_etcd_of_the_mesh_is_created_before_it_can_say_what_is_in_force(
    tmp_path: Path, runtime: FakeRuntime, clock: FakeClock
) -> None:
    plan = fake_plan(tmp_path, names=("edge-1",))
    plan = replace(plan, nodes=(PlannedNode("etcd", "etcd"), *plan.nodes))
    Controller(plan, runtime, clock, patience=PATIENCE).tick()
    assert runtime.steps == ["create etcd"]


def test_an_older_plan_has_no_effect(
    plan: ClusterPlan, controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    controller.follow(replace(plan, revision=3), current=True)
    controller.follow(replace(plan, revision=2, nodes=()), current=True)
    settle(controller, runtime, clock)
    assert set(runtime.nodes) == set(NAMES)


def test_a_new_node_is_created_and_the_others_are_not_touched(
    plan: ClusterPlan, controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    controller.glance(5)  # a round has begun
    more = replace(plan, revision=2, nodes=(*plan.nodes, PlannedNode("edge-3", "edge")))
    controller.follow(more, current=True)
    while not controller.ready:
        controller.tick()
        clock.now += 0.1
    assert runtime.steps == ["create edge-3", "begin edge-3"]


def test_a_new_controller_does_not_touch_running_nodes(
    plan: ClusterPlan, controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    after = Controller(plan, runtime, clock)
    after.tick()
    assert runtime.steps == []
    assert after.ready


def test_stop_ends_the_doors_first_and_ticks_create_no_nodes(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    controller.stop(1.0)
    assert [step for step in runtime.steps if step.startswith("end")] == ["end door", "end core", "end edge-1 edge-2"]
    assert runtime.nodes == {}
    controller.tick()
    assert runtime.nodes == {}
    assert controller.snapshot().state == host.STOPPING


def test_decide_gives_the_same_steps_for_the_same_input(plan: ClusterPlan) -> None:
    seen = {name: Seen(state=host.HELD) for name in NAMES}
    once = decide(plan, seen, 0.0, Knowledge())
    assert once == decide(plan, seen, 0.0, Knowledge())
    assert [(step.kind, step.name) for step in once] == [(Kind.BEGIN, "edge-1"), (Kind.BEGIN, "edge-2")]


def test_glances_reach_every_node(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    runtime.say("door", host.READY, uptime=7.0)
    runtime.nodes["core"] = None
    ends = [controller.glance(3) for _ in range(4)]
    assert ends == [False, True, False, True], "two of four nodes at a time"
    assert state_of(controller, "door").uptime == 7.0
    assert state_of(controller, "core").state == "starting"
    assert not controller.ready


def test_glances_create_an_absent_node_again(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    runtime.remove("edge-2")
    runtime.steps.clear()
    while "create edge-2" not in runtime.steps:
        controller.glance(4)
        clock.now += 1
        assert clock.now < 1100


def test_restarts_of_all_nodes_are_counted(controller: Controller, runtime: FakeRuntime, clock: FakeClock) -> None:
    settle(controller, runtime, clock)
    for name in ("edge-1", "core"):
        runtime.come(name, host.READY)
    controller.tick()
    assert controller.restarts == 2


def test_glances_skip_a_node_retired_during_the_round(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    runtime.come("old-door", host.READY)
    controller.follow(controller.plan, current=True)
    clock.now += CLAIMS
    while "finish old-door 5" not in runtime.steps:
        controller.glance(5)
    runtime.say("old-door", host.STOPPED)
    while "remove old-door" not in runtime.steps:
        controller.glance(5)
    while not controller.glance(5):
        clock.now += 0.2
    assert controller.ready


def test_a_row_shows_the_node_status_and_figures(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    told = EtcdStatus(connections=1, sessions=2, queued=3, detail="fine", revived=4)
    runtime.say("edge-1", host.READY, status=told)
    controller.tick()
    row = state_of(controller, "edge-1")
    assert (row.host, row.connections, row.sessions, row.queued, row.detail) == ("127.0.0.1", 1, 2, 3, "fine")
    assert row.figures == {"mesh_etcd_restarts_total": 4}


def test_a_lost_node_keeps_its_metrics_address(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    assert state_of(controller, "core").metrics == ""
    runtime.say("core", host.READY, status=NodeStatus(metrics="127.0.0.1:9466"))
    controller.tick()
    runtime.nodes["core"] = None
    controller.tick()
    assert state_of(controller, "core").metrics == "127.0.0.1:9466"
    runtime.come("core", host.STARTING)
    controller.tick()
    assert state_of(controller, "core").metrics == "127.0.0.1:9466"
    runtime.say("core", host.READY, status=NodeStatus(metrics="127.0.0.1:9468"))
    controller.tick()
    assert state_of(controller, "core").metrics == "127.0.0.1:9468"
    runtime.say("core", host.READY, status=NodeStatus())  # a change of the settings has removed it
    controller.tick()
    assert state_of(controller, "core").metrics == ""


def test_a_snapshot_survives_json(
    controller: Controller, runtime: FakeRuntime, clock: FakeClock
) -> None:
    settle(controller, runtime, clock)
    told = EtcdStatus(revived=4, metrics="127.0.0.1:9464")
    runtime.say("edge-1", host.READY, status=told, uptime=1.5)
    controller.tick()
    found = replace(controller.snapshot(), warnings=("ray: this cluster ends the nodes",))
    read = Snapshot.from_json(found.to_json())
    assert (read.mesh, read.state, read.nodes, read.warnings) == (found.mesh, found.state, found.nodes, found.warnings)
    assert 0 <= read.age < 60


def test_unknown_keys_of_a_snapshot_are_ignored() -> None:
    row = '{"name": "a", "role": "b", "state": "c", "new": 1}'
    text = f'{{"mesh": "m", "state": "ready", "written": 1, "more": 2, "nodes": [{row}]}}'
    assert Snapshot.from_json(text).nodes == (NodeRow("a", "b", "c"),)


@pytest.mark.parametrize("text", ["[]", "{}", '{"mesh": "m", "state": "x", "written": 1, "nodes": [{"name": "a"}]}'])
def test_an_invalid_snapshot_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no status of a mesh"):
        Snapshot.from_json(text)
