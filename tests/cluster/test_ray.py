"""Meshes of fake nodes on a real Ray: from ``up`` to ``down``, with killed processes in between."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mesh.cluster.lifecycle import NotUp, down, up
from mesh.cluster.look import status_of
from mesh.cluster.plan import ClusterPlan
from mesh.cluster.run import Run, load_run, logs_path, running
from mesh.cluster.status import NodeRow
from mesh.cluster.supervisor import TOO_SOON
from tests.cluster.meshes import fake_plan, going_down, offer_fake_nodes, port_of, served_by
from tests.support.session import session
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.long]


@pytest.fixture(scope="module", autouse=True)
def fake_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("PYTHONPATH", "")
    offer_fake_nodes(tmp_path_factory.mktemp("modules"))
    yield
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ClusterPlan:
    return fake_plan(tmp_path_factory.mktemp("one") / "data", "one", ("edge-1", "core", "door"))


@pytest.fixture(scope="module")
def run(plan: ClusterPlan) -> Iterator[Run]:
    """One mesh for the tests of this file, which leave it ready."""
    data = Path(plan.data)
    with going_down(data):
        yield up(plan, "one.yaml", follow=False)


@pytest.fixture(scope="module", autouse=True)
def ready_at(run: Run) -> float:
    """When the mesh was ready, by the monotonic clock. Its supervisor started earlier."""
    return time.monotonic()


def row(run: Run, name: str) -> NodeRow:
    return next(each for each in status_of(run).nodes if each.name == name)


def wait_replaced(plan: ClusterPlan, name: str, killed: int) -> None:
    """Wait until a new process serves instead of the killed one."""
    wait_until(lambda: served_by(plan, name) not in (0, killed), seconds=60.0)


def children(run: Run, word: str) -> list[int]:
    """The processes of Ray whose program or title holds ``word``."""
    return [pid for pid in session(run) if word in title(pid)]


def title(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def test_every_node_serves_in_its_own_process(plan: ClusterPlan, run: Run) -> None:
    pids = {served_by(plan, node.name) for node in plan.nodes}
    assert len(pids - {0}) == len(plan.nodes)
    assert pids <= session(run)


def test_the_mesh_listens_on_loopback_and_leaves_the_home_folder_alone(run: Run) -> None:
    for pid in session(run):
        for connection in psutil.Process(pid).net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip.removeprefix("::ffff:") == "127.0.0.1", f"{pid} on {connection.laddr}"
    assert not (Path.home() / ".ray").exists()


def test_no_other_user_can_enter_a_folder_of_the_mesh(plan: ClusterPlan, run: Run) -> None:
    """Ray gives its own folders mode 0777; they are in ``ray/run``."""
    data = Path(plan.data)
    assert [oct(path.stat().st_mode & 0o777) for path in (data, data / "ray", data / "ray" / "token")] == [
        "0o700",
        "0o700",
        "0o600",
    ]
    others = [path for path in data.rglob("*") if path.is_dir() and data / "ray" / "run" not in (path, *path.parents)]
    assert {str(path): oct(path.stat().st_mode) for path in others if path.stat().st_mode & 0o077} == {}


def test_a_killed_node_restarts_and_the_others_run_on(plan: ClusterPlan, run: Run) -> None:
    before = {node.name: served_by(plan, node.name) for node in plan.nodes}
    for _ in range(2):
        victim = served_by(plan, "edge-1")
        os.kill(victim, signal.SIGKILL)
        wait_replaced(plan, "edge-1", victim)
        wait_until(lambda: row(run, "edge-1").pid == served_by(plan, "edge-1"))
        wait_until(lambda: status_of(run).all_ready)
    assert row(run, "edge-1").restarts == 2
    for name in ("core", "door"):
        assert served_by(plan, name) == before[name]


@pytest.mark.parametrize(
    ("word", "what"), [("crash", "it crashed: Segmentation fault"), ("stick", "its event loop had stopped")]
)
def test_a_node_that_crashes_or_hangs_restarts_and_leaves_its_stacks(
    plan: ClusterPlan, run: Run, word: str, what: str
) -> None:
    victim = served_by(plan, "edge-1")
    with socket.create_connection(("127.0.0.1", port_of(plan, "edge-1"))) as connection:
        connection.sendall(word.encode())
        wait_replaced(plan, "edge-1", victim)
    wait_until(lambda: status_of(run).all_ready)
    log = (logs_path(Path(run.data)) / "edge-1.log").read_text()
    assert f"the last process of edge-1 ended: {what}" in log
    assert "in _serve" in log.split(what)[1]


def test_a_killed_controller_restarts_and_the_nodes_run_on(plan: ClusterPlan, run: Run) -> None:
    before = {node.name: served_by(plan, node.name) for node in plan.nodes}
    (controller,) = children(run, "ray::Controller")
    os.kill(controller, signal.SIGKILL)
    wait_until(lambda: children(run, "ray::Controller") not in ([], [controller]))
    wait_until(lambda: status_of(run).all_ready)
    assert {node.name: served_by(plan, node.name) for node in plan.nodes} == before


def test_two_meshes_run_side_by_side_one_in_a_long_path(plan: ClusterPlan, run: Run, tmp_path: Path) -> None:
    before = {node.name: served_by(plan, node.name) for node in plan.nodes}
    # Longer than the 107 bytes that the path of a UNIX socket may have.
    other = fake_plan(tmp_path / ("b" * 120) / "data", "two")
    data = Path(other.data)
    with going_down(data):
        second = up(other, "two.yaml", follow=False)
        assert {one.mesh for one in running()} >= {plan.mesh, other.mesh}
        assert served_by(other, "door") in session(second)
        # The mesh ends with its killed supervisor, and the next 'up' starts it again.
        os.kill(second.supervisor, signal.SIGKILL)
        wait_until(lambda: served_by(other, "door") == 0)
        again = up(other, "two.yaml", follow=False)
        assert served_by(other, "door") in session(again)
        assert down(data)
        assert served_by(other, "door") == 0
    assert not session(again)
    assert {node.name: served_by(plan, node.name) for node in plan.nodes} == before
    assert set(before.values()) <= session(run)


def test_a_killed_raylet_restarts_the_whole_mesh(plan: ClusterPlan, run: Run, ready_at: float) -> None:
    before = served_by(plan, "door")
    # If Ray fails within its first seconds, the supervisor gives up.
    wait_until(lambda: time.monotonic() > ready_at + TOO_SOON)
    (raylet,) = (pid for pid in children(run, "raylet/raylet") if title(pid).split()[0].endswith("raylet"))
    os.kill(raylet, signal.SIGKILL)
    wait_replaced(plan, "door", before)
    wait_until(lambda: status_of(load_run(Path(run.data)) or run).all_ready, seconds=60.0)
    assert run.is_alive()


def test_down_leaves_no_process_and_no_port(plan: ClusterPlan, run: Run) -> None:
    now = load_run(Path(run.data)) or run
    pids = session(now)
    assert down(Path(run.data))
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), seconds=5.0)
    for node in plan.nodes:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections (TIME_WAIT) do not count
            free.bind(("127.0.0.1", port_of(plan, node.name)))
        assert (Path(plan.data) / "nodes" / node.name / "stopped").exists()
    assert not down(Path(run.data))


def test_up_reports_a_node_that_cannot_start_and_ends_the_mesh(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path / "data", "fails", ("edge-1", "door"), fail="door")
    with pytest.raises(NotUp) as caught:
        up(plan, "fails.yaml", follow=False)
    assert caught.value.reasons == [
        "door 'door' is not ready: port 1883 is in use: end what listens there, or change the topology"
    ]
    run = load_run(Path(plan.data))
    assert run is not None
    assert not run.is_alive()
    assert not session(run)
