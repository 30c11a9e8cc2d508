"""The controller finds the newest settings: in etcd, in the data folder, or in its hands; starts are counted."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cluster.actors import last_plan
from mesh.cluster.following import Following
from mesh.cluster.leaving import Counts
from mesh.cluster.lifecycle import planned
from mesh.cluster.plan import ClusterPlan, revised
from mesh.cluster.revisions import Revisions
from mesh.cluster.run import save_plan
from mesh.cluster.starts import count_start
from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.keys import Keys
from mesh.registry.record import Record
from mesh.registry.settings import Revision, SettingsStore
from mesh.topology.load import load
from mesh.topology.topology import Topology, as_dict
from tests.support.settings import begun, etcd_in, question, write_file
from tests.support.waiting import wait_until

_numbers = itertools.count()
MORE = ("{name: edge-2}", "{name: edge-2}, {name: edge-3}")
CACHE = ("limits:", "map: {cache: 100000}\nlimits:")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedEtcd, Path]]:
    folder = tmp_path_factory.mktemp("etcd") / "etcd"
    with etcd_in(folder) as server:
        yield server, folder


class Told:
    def __init__(self) -> None:
        self.plans: list[tuple[ClusterPlan, bool]] = []

    def __call__(self, plan: ClusterPlan, current: bool) -> None:
        self.plans.append((plan, current))

    def last(self) -> tuple[int, bool]:
        plan, current = self.plans[-1] if self.plans else (None, False)
        return (0 if plan is None else plan.revision), current


class Mesh:
    """A mesh whose first revision is in force."""

    def __init__(self, folder: Path, etcd: tuple[EmbeddedEtcd, Path]) -> None:
        self.folder, self.etcd = folder, etcd
        self.name = f"f-{os.getpid()}-{next(_numbers)}"
        self.topology = begun(self.file())
        self.plan = replace(planned(self.topology), revision=1, since=12.5)
        self.followed: list[Following] = []

    def follow(self, plan: ClusterPlan, revisions: Revisions, told: Told) -> None:
        self.followed.append(Following(plan, revisions, Counts(), told))
        self.followed[-1].start()

    def file(self, *changes: tuple[str, str]) -> Path:
        return write_file(self.folder, self.name, *self.etcd, *changes)

    def changed(self, *changes: tuple[str, str]) -> Topology:
        return load(self.file(*changes))

    def put(self, *changes: tuple[str, str]) -> Topology:
        """Put changed settings in force."""
        topology = self.changed(*changes)
        made = Revision(0, as_dict(topology), 2.0, "tester", "here", over=60.0)
        question(topology, lambda client: SettingsStore(client, self.name).first(made))
        return topology


@pytest.fixture
def mesh(tmp_path: Path, etcd: tuple[EmbeddedEtcd, Path]) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path, etcd)
    yield mesh
    for following in mesh.followed:
        following.stop()


def test_the_controller_gets_the_plan_of_each_revision(mesh: Mesh) -> None:
    told = Told()
    mesh.follow(mesh.plan, Revisions(mesh.plan), told)
    wait_until(lambda: told.last() == (1, True))
    after = mesh.put(MORE)
    wait_until(lambda: told.last() == (2, True))
    assert told.plans[-1][0] == revised(mesh.plan, after, 2, 60.0)
    assert told.plans[-1][0].node("edge-3") is not None


def test_a_controller_with_the_plan_of_the_start_gets_the_newest_one(mesh: Mesh) -> None:
    mesh.put(MORE)
    mesh.put(MORE, CACHE)
    told = Told()
    revisions = Revisions(mesh.plan)
    mesh.follow(mesh.plan, revisions, told)
    wait_until(lambda: told.last() == (3, True))
    plan = told.plans[0][0]
    begun = {"edge-1": 3, "edge-2": 2, "core": 1}
    wait_until(lambda: revisions.behind(begun, plan) == {"edge-2", "core"})  # revision 2 is read from etcd


def test_the_vehicles_of_edges_that_are_to_stop_are_counted(mesh: Mesh) -> None:
    async def map_vehicles(client: EtcdClient) -> None:
        for vehicle in ("one", "two"):
            await client.put(Keys(mesh.name).vehicle(vehicle), Record(vehicle, "edge-2", "standard", 1).value())

    question(mesh.topology, map_vehicles)
    counts = Counts()
    mesh.followed.append(Following(mesh.plan, Revisions(mesh.plan), counts, Told()))
    mesh.followed[-1].start()
    wait_until(lambda: counts(["edge-1", "edge-2"]) == {"edge-1": 0, "edge-2": 2})


def test_settings_that_etcd_has_lost_are_not_in_force(mesh: Mesh) -> None:
    told = Told()
    mesh.follow(mesh.plan, Revisions(mesh.plan), told)
    wait_until(lambda: told.last() == (1, True))

    async def forget(client: EtcdClient) -> None:
        await client.delete(Keys(mesh.name).current)

    question(mesh.topology, forget)
    wait_until(lambda: told.last() == (1, False))


def test_older_settings_of_etcd_have_no_effect(mesh: Mesh) -> None:
    told = Told()
    plan = replace(mesh.plan, revision=7)
    mesh.follow(plan, Revisions(plan), told)
    wait_until(lambda: told.plans == [(plan, False)])


def test_nothing_is_in_force_while_etcd_does_not_answer(tmp_path: Path) -> None:
    """Nodes need etcd to start again, so none may be restarted then."""
    folder = tmp_path / "etcd"
    told = Told()
    with etcd_in(folder) as server:
        mesh = Mesh(tmp_path, (server, folder))
        mesh.follow(mesh.plan, Revisions(mesh.plan), told)
        wait_until(lambda: told.last() == (1, True))
    wait_until(lambda: told.last() == (1, False))
    mesh.followed[0].stop()


def test_a_controller_without_etcd_has_the_last_plan_of_its_run(mesh: Mesh) -> None:
    assert last_plan(mesh.plan) == mesh.plan
    later = revised(mesh.plan, mesh.changed(MORE), 4, 0.0)
    save_plan(later)
    assert last_plan(mesh.plan).revision == 4
    assert last_plan(replace(mesh.plan, revision=5)).revision == 5
    assert last_plan(replace(mesh.plan, since=99.0)).revision == 1, "it is the plan of another run"


def test_a_revision_that_is_not_known_restarts_no_node(mesh: Mesh) -> None:
    revisions = Revisions(mesh.plan)
    plan = revised(mesh.plan, mesh.changed(CACHE), 9, 0.0)
    assert revisions.behind({"edge-1": 5}, plan) == frozenset()
    assert revisions.wanted() == [5]
    revisions.put(5, mesh.topology)
    assert (revisions.behind({"edge-1": 5, "edge-2": 9}, plan), revisions.wanted()) == ({"edge-1"}, [])


def test_settings_without_a_number_are_those_of_the_start(mesh: Mesh) -> None:
    """As when etcd did not answer at the start of the mesh."""
    revisions = Revisions(replace(mesh.plan, revision=0))
    plan = revised(mesh.plan, mesh.changed(CACHE), 1, 0.0)
    assert revisions.behind({"edge-1": 0}, plan) == {"edge-1"}


def test_the_console_moves_without_a_restart(mesh: Mesh) -> None:
    first, second = (mesh.changed(("limits:", f"console: 127.0.0.1:{port}\nlimits:")) for port in (18080, 18081))
    before = revised(mesh.plan, first, 1, 0.0)
    assert Revisions(before).behind({"console": 1, "core": 1}, revised(before, second, 2, 0.0)) == frozenset()


def test_starts_are_counted_for_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "nodes" / "edge-1"
    assert [count_start(folder, 1.0) for _ in range(3)] == [0, 1, 2]
    assert [count_start(folder, 2.0) for _ in range(2)] == [0, 1]
    (folder / "starts.json").write_text("damaged")
    assert count_start(folder, 2.0) == 0


def test_starts_that_cannot_be_counted_keep_no_node_from_starting(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("no folder")
    assert count_start(tmp_path / "nodes" / "edge-1", 1.0) == 0


def test_settings_of_a_start_without_etcd_become_a_revision(mesh: Mesh) -> None:
    """``mesh up`` has started the mesh with a changed file, and etcd answers only now."""
    after = mesh.changed(MORE)
    plan = replace(planned(after), since=12.5)
    told = Told()
    mesh.follow(plan, Revisions(plan), told)
    wait_until(lambda: told.last() == (2, True))
    assert told.plans[-1][0] == replace(plan, revision=2)
    current = question(after, lambda client: SettingsStore(client, mesh.name).current())
    assert current is not None
    assert (current.number, current.changes) == (2, ("pools.standard.edges.edge-3: added",))


def test_the_first_settings_of_a_mesh_become_a_revision_when_etcd_answers(mesh: Mesh) -> None:
    async def forget(client: EtcdClient) -> None:
        await client.delete(Keys(mesh.name).current)

    question(mesh.topology, forget)
    plan, told = replace(mesh.plan, revision=0), Told()
    mesh.follow(plan, Revisions(plan), told)
    wait_until(lambda: told.last()[1])
    assert told.plans[-1][0].settings == plan.settings


def test_settings_of_a_start_that_lack_an_edge_with_vehicles_are_not_put_in_force(mesh: Mesh) -> None:
    after = mesh.changed((", {name: edge-2}", ""))
    record = b'{"edge":"edge-2","epoch":1,"pool":"standard"}'
    question(after, lambda client: client.put(Keys(mesh.name).vehicle("CAR-1"), record))
    plan, told = replace(planned(after), since=12.5), Told()
    mesh.follow(plan, Revisions(plan), told)
    wait_until(lambda: told.last() == (1, True))
    assert told.plans[-1][0].node("edge-2") is not None
