"""A mesh of fake nodes on a real Ray follows the settings in etcd, also if its controller is killed in between."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from mesh.cluster.lifecycle import planned, up
from mesh.cluster.look import status_of
from mesh.cluster.run import Run, load_plan
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.keys import Keys
from mesh.registry.record import Record
from mesh.registry.settings import Revision, SettingsStore
from mesh.topology.load import load
from mesh.topology.topology import Topology, as_dict
from tests.cluster.meshes import FACTORY, going_down, offer_fake_nodes
from tests.support.session import session
from tests.support.settings import etcd_in, question, write_file
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.long]

NAMES = ("edge-1", "edge-2", "core", "door")
CACHE = ("limits:", "map: {cache: 100000}\nlimits:")


@dataclass(frozen=True)
class Mesh:
    folder: Path
    etcd: EmbeddedEtcd
    run: Run

    def put(self, *changes: tuple[str, str]) -> None:
        put(load(write_file(self.folder, "rolls", self.etcd, self.folder / "etcd", *changes)))

    def revisions(self) -> dict[str, int]:
        """The revision with which each node that is ready was started."""
        return {row.name: row.begun for row in status_of(self.run).nodes if row.state == "ready"}

    def details(self) -> dict[str, str]:
        return {row.name: row.detail for row in status_of(self.run).nodes}

    def restarts(self) -> dict[str, int]:
        return {row.name: row.restarts for row in status_of(self.run).nodes}

    def life(self, name: str) -> list[tuple[str, float]]:
        """What happened to a node: ``start 1``, ``stop``, and when."""
        lines = (self.folder / "data" / "nodes" / name / "life").read_text().splitlines()
        return [(event, float(at)) for event, _, at in (line.rpartition(" ") for line in lines)]

    def controller(self) -> int:
        """The process of the controller; 0 while there is none."""
        return next((pid for pid in session(self.run) if "ray::Controller" in title(pid)), 0)


def title(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def put(topology: Topology) -> None:
    """Put settings in force."""
    made = Revision(0, as_dict(topology), time.time(), "tester", "here", over=1.0)
    question(topology, lambda client: SettingsStore(client, topology.mesh).first(made))


@pytest.fixture
def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mesh]:
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    offer_fake_nodes(tmp_path / "modules")
    with etcd_in(tmp_path / "etcd") as etcd:
        file = write_file(tmp_path, "rolls", etcd, tmp_path / "etcd")
        topology = load(file)
        put(topology)
        with going_down(topology.data):
            plan = replace(planned(topology), revision=1, factory=FACTORY)
            yield Mesh(tmp_path, etcd, up(plan, str(file), follow=False))


def test_a_controller_that_is_killed_in_a_rolling_change_is_continued_by_the_next(mesh: Mesh) -> None:
    assert mesh.revisions() == dict.fromkeys(NAMES, 1)
    first = mesh.controller()
    mesh.put(CACHE)
    wait_until(lambda: 2 in mesh.revisions().values(), seconds=60.0)
    os.kill(first, signal.SIGKILL)
    assert 1 in mesh.revisions().values(), "it was killed in the midst"
    wait_until(lambda: mesh.controller() not in (0, first))
    wait_until(lambda: mesh.revisions() == dict.fromkeys(NAMES, 2), seconds=120.0)
    assert mesh.restarts() == dict.fromkeys(NAMES, 1)
    away = []
    for name in NAMES:
        assert [event for event, _ in mesh.life(name)] == ["start 1", "stop", "start 2"]
        away.append((mesh.life(name)[1][1], mesh.life(name)[2][1]))
    assert all(back < gone for (_, back), (gone, _) in zip(sorted(away), sorted(away)[1:], strict=False)), away

    # The next controller has the plan of the start; it must neither remove nor create what it knew then.
    mesh.put(CACHE, (", {name: edge-2}", ", {name: edge-3}"), ("name: door,", "name: door, replicas: 2,"))
    wait_until(lambda: set(mesh.revisions()) == {"edge-1", "edge-3", "core", "door", "door-2"}, seconds=60.0)
    wait_until(lambda: mesh.life("edge-2")[-1][0] == "stop")
    wait_until(lambda: load_plan(mesh.folder / "data").revision == 3)
    second = mesh.controller()
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: mesh.controller() not in (0, second))
    wait_until(lambda: status_of(mesh.run).all_ready)
    assert len(mesh.life("edge-3")) == 1
    assert mesh.life("edge-2")[-1][0] == "stop"
    assert mesh.restarts() == {"edge-1": 1, "edge-3": 0, "core": 1, "door": 1, "door-2": 0}


def test_an_edge_that_got_a_vehicle_is_removed_when_it_has_none(mesh: Mesh) -> None:
    """``mesh up`` counted before the vehicle came."""
    topology = load(mesh.folder / "mesh.yaml")
    vehicle = Keys(topology.mesh).vehicle("late")
    question(topology, lambda client: client.put(vehicle, Record("late", "edge-2", "standard", 1).value()))
    mesh.put((", {name: edge-2}", ""))
    wait_until(lambda: "owns 1 vehicles" in mesh.details().get("edge-2", ""), seconds=60.0)
    assert [event for event, _ in mesh.life("edge-2")] == ["start 1"]
    question(topology, lambda client: client.delete(vehicle))
    wait_until(lambda: "edge-2" not in mesh.details(), seconds=60.0)
    assert mesh.life("edge-2")[-1][0] == "stop"
