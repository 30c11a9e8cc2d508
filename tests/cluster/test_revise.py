"""How a changed file becomes a revision: on all nodes, or on none."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.cluster import owned, revise
from mesh.cluster.find import Found, find
from mesh.cluster.known import ask
from mesh.cluster.lifecycle import planned
from mesh.cluster.present import compare, earlier, first, of_folder, put_in_force
from mesh.cluster.revise import NotChanged
from mesh.cluster.run import run_path, save_plan
from mesh.cluster.status import NodeRow
from mesh.node.registry import etcd_folder
from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.keys import Keys
from mesh.registry.settings import SettingsStore
from mesh.topology.change import Kind
from mesh.topology.load import load
from mesh.topology.topology import Topology
from tests.support.settings import VotingNodes, begun, etcd_in, question, write_file
from tests.support.topologies import topology

_numbers = itertools.count()
MORE = ("queue_messages: 1000", "queue_messages: 2000")


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedEtcd, Path]]:
    folder = tmp_path_factory.mktemp("etcd") / "etcd"
    with etcd_in(folder) as server:
        yield server, folder


class Mesh:
    """A mesh with its first revision in force."""

    def __init__(self, folder: Path, etcd: tuple[EmbeddedEtcd, Path]) -> None:
        self.folder, self.etcd = folder, etcd
        self.name = f"m-{os.getpid()}-{next(_numbers)}"
        self.topology = begun(self.file())

    def file(self, *changes: tuple[str, str]) -> Path:
        return write_file(self.folder, self.name, *self.etcd, *changes)

    def changed(self, *changes: tuple[str, str]) -> Topology:
        return load(self.file(*changes))

    def found(self) -> Found:
        return find(self.topology)

    def current(self) -> int:
        found = question(self.topology, lambda client: SettingsStore(client, self.name).current())
        return 0 if found is None else found.number

    def limit(self) -> int:
        found = question(self.topology, lambda client: SettingsStore(client, self.name).current())
        assert found is not None
        return int(found.settings["limits"]["queue_messages"])

    def own(self, edge: str, *vehicles: str) -> None:
        async def write(client: EtcdClient) -> None:
            for vehicle in vehicles:
                await client.put(
                    f"/mesh/{self.name}/vehicles/{vehicle}".encode(),
                    f'{{"edge":"{edge}","epoch":1,"pool":"standard"}}'.encode(),
                )

        question(self.topology, write)


@pytest.fixture
def mesh(tmp_path: Path, etcd: tuple[EmbeddedEtcd, Path]) -> Mesh:
    return Mesh(tmp_path, etcd)


def silence(line: str) -> None:
    """Drops what is waited for."""


def test_a_change_is_in_force_when_every_node_has_confirmed_it(mesh: Mesh) -> None:
    with VotingNodes(mesh.topology):
        done = put_in_force(mesh.changed(MORE), mesh.found(), 0.0, silence)
    assert done.changed is not None
    assert dict(done.changed.confirmed) == dict.fromkeys(("core", "door", "edge-1", "edge-2"), "")
    assert done.changed.silent == ()
    assert (done.changed.revision.number, mesh.current(), mesh.limit()) == (2, 2, 2000)
    assert done.changed.revision.changes == ("limits.queue_messages: 1000 -> 2000",)


def test_no_difference_makes_no_revision(mesh: Mesh) -> None:
    done = put_in_force(mesh.changed(), mesh.found(), 0.0, silence)
    assert (done.changed, done.source, mesh.current()) == (None, "revision 1", 1)


POOL = ("{name: edge-2}]}]", "{name: edge-2}]}, {name: legacy, match: {prefix: OLD}, edges: [{name: old-1}]}]")


def test_a_pool_comes_and_goes_while_the_mesh_runs(mesh: Mesh) -> None:
    """Its vehicles stay where they are, and it can be taken back while none has come to it."""
    mesh.own("edge-1", "OLD-1", "OLD-2")
    added = compare(mesh.changed(POOL), mesh.found()).difference
    assert added is not None
    assert [(one.path, one.kind) for one in added.changes] == [
        ("pools.legacy", Kind.LIVE), ("pools.legacy.edges.old-1", Kind.LIVE)
    ]  # fmt: skip
    assert added.owned.staying == 2
    with VotingNodes(mesh.topology):
        assert put_in_force(mesh.changed(POOL), mesh.found(), 0.0, silence).changed is not None
        assert put_in_force(mesh.changed(), mesh.found(), 0.0, silence).changed is not None
        assert mesh.current() == 3
        put_in_force(mesh.changed(POOL), mesh.found(), 0.0, silence)
        mesh.own("old-1", "OLD-3")
        with pytest.raises(NotChanged, match=r"old-1 has 1 vehicles.*weight: 0"):
            put_in_force(mesh.changed(), mesh.found(), 0.0, silence)
    assert mesh.current() == 4


def test_one_node_against_it_and_nothing_is_changed(mesh: Mesh) -> None:
    with VotingNodes(mesh.topology) as running:
        running.errors = {"door": "port 18830 is in use by another program"}
        with pytest.raises(NotChanged) as caught:
            put_in_force(mesh.changed(MORE), mesh.found(), 0.0, silence)
        assert caught.value.reasons == ("door: port 18830 is in use by another program",)
        assert (mesh.current(), mesh.limit()) == (1, 1000)
        running.errors = {}
        running.seen.clear()
        done = put_in_force(mesh.changed(MORE), mesh.found(), 0.0, silence)
        assert done.changed is not None
        assert mesh.limit() == 2000


def test_a_silent_node_and_nothing_is_changed(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revise, "VOTES", 0.5)
    said: list[str] = []
    with VotingNodes(mesh.topology) as running:
        running.silent = frozenset({"edge-2"})
        with pytest.raises(NotChanged, match="edge-2 did not answer within"):
            put_in_force(mesh.changed(MORE), mesh.found(), 0.0, said.append)
    assert "waits for the votes of edge-2" in said
    assert (mesh.current(), mesh.limit()) == (1, 1000)


def test_a_node_that_does_not_run_is_not_asked(mesh: Mesh) -> None:
    with VotingNodes(mesh.topology, frozenset({"edge-2"})):
        done = put_in_force(mesh.changed(MORE), mesh.found(), 0.0, silence)
    assert done.changed is not None
    assert "edge-2" not in done.changed.confirmed
    assert mesh.limit() == 2000


def test_a_command_that_is_interrupted_leaves_nothing_behind(mesh: Mesh) -> None:
    found = compare(mesh.changed(MORE), mesh.found()).difference
    assert found is not None

    async def interrupted(client: EtcdClient) -> None:
        waits = asyncio.Event()
        task = asyncio.create_task(revise.change(client, found, 0.0, lambda line: waits.set()))
        await waits.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        store = SettingsStore(client, mesh.name)
        assert [one.number for one in await store.history()] == [1]

    with VotingNodes(mesh.topology) as running:
        running.silent = frozenset({"core"})
        question(mesh.topology, interrupted)
        running.silent = frozenset()
        running.seen.clear()
        assert put_in_force(mesh.changed(MORE), mesh.found(), 0.0, silence).changed is not None


def test_a_node_that_does_not_confirm_is_named(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revise, "CONFIRMATIONS", 0.5)
    with VotingNodes(mesh.topology) as running:
        running.tired = frozenset({"core"})
        done = put_in_force(mesh.changed(MORE), mesh.found(), 0.0, silence)
    assert done.changed is not None
    assert (done.changed.silent, "core" in done.changed.confirmed) == (("core",), False)


def test_two_changes_at_the_same_time_and_one_is_told(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revise, "VOTES", 1.5)
    other = mesh.changed(("queue_messages: 1000", "queue_messages: 3000"))
    this = mesh.changed(MORE)
    found = mesh.found()
    waits = threading.Event()
    with VotingNodes(mesh.topology) as running, ThreadPoolExecutor(1) as thread:
        running.silent = frozenset({"door"})
        first_one = thread.submit(put_in_force, this, found, 0.0, lambda line: waits.set())
        assert waits.wait(10.0)
        with pytest.raises(NotChanged, match="another"):
            put_in_force(other, found, 0.0, silence)
        with pytest.raises(NotChanged, match="door did not answer"):
            first_one.result(30.0)
    assert (mesh.current(), mesh.limit()) == (1, 1000)


def test_what_is_refused_changes_nothing(mesh: Mesh) -> None:
    mesh.own("edge-2", "CAR-1", "CAR-2")
    changes = ((", {name: edge-2}", ""), MORE)
    compared = compare(mesh.changed(*changes), mesh.found())
    assert compared.difference is not None
    (refused,) = compared.difference.of(Kind.REFUSED)
    assert (refused.path, "edge-2 has 2 vehicles" in refused.why) == ("pools.standard.edges.edge-2", True)
    with pytest.raises(NotChanged, match=r"edge-2 has 2 vehicles.*weight: 0"):
        put_in_force(mesh.changed(*changes), mesh.found(), 0.0, silence)
    assert (mesh.current(), mesh.limit()) == (1, 1000)


def test_an_edge_without_vehicles_is_removed(mesh: Mesh) -> None:
    mesh.own("edge-1", "CAR-1")
    with VotingNodes(mesh.topology):
        done = put_in_force(mesh.changed((", {name: edge-2}", "")), mesh.found(), 0.0, silence)
    assert done.changed is not None
    assert mesh.current() == 2


def test_the_plan_says_how_many_vehicles_stay_against_a_rule(mesh: Mesh) -> None:
    mesh.own("edge-1", "A-1", "A-2", "B-1")
    new = ("{name: edge-2}]}]", '{name: edge-2}]}, {name: a, match: {prefix: "A-"}, edges: [{name: edge-3}]}]')
    compared = compare(mesh.changed(new), mesh.found())
    assert compared.difference is not None
    assert (compared.difference.owned.staying, compared.difference.of(Kind.REFUSED)) == (2, [])


def test_a_large_map_gives_lower_bounds(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh.own("edge-2", "CAR-1")

    pages = EtcdClient.pages

    async def never_ends(self: EtcdClient, *of: Any, **options: Any) -> AsyncGenerator[Any, None]:
        async for page in pages(self, *of, **options):
            yield page
        await asyncio.sleep(60)

    monkeypatch.setattr(EtcdClient, "pages", never_ends)
    gone = mesh.changed(("{name: edge-1}, {name: edge-2}", "{name: edge-3}"))
    found = question(mesh.topology, lambda client: owned.vehicles(client, mesh.topology, gone, seconds=0.5))
    assert (found.nodes, found.exact) == ({"edge-2": 1}, False)


def test_a_record_that_cannot_be_read_may_belong_to_the_edge_that_is_removed(mesh: Mesh) -> None:
    mesh.own("edge-1", "CAR-1")
    question(mesh.topology, lambda client: client.put(f"/mesh/{mesh.name}/vehicles/CAR-2".encode(), b"{}"))
    compared = compare(mesh.changed((", {name: edge-2}", ""), MORE), mesh.found())
    assert compared.difference is not None
    assert [one.why for one in compared.difference.of(Kind.REFUSED)] == ["how many vehicles edge-2 has is not known"]
    assert compared.difference.revision == 1


def test_without_etcd_nothing_is_changed_and_the_plan_says_where_it_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with etcd_in(tmp_path / "etcd") as server:
        mesh = Mesh(tmp_path, (server, tmp_path / "etcd"))
        save_plan(planned(mesh.topology))
        new = mesh.changed(MORE)
    with pytest.raises(NotChanged, match="etcd does not answer"):
        put_in_force(new, mesh.found(), 0.0, silence)
    compared = compare(new, mesh.found())
    assert compared.difference is not None
    assert [change.path for change in compared.difference.changes] == ["limits.queue_messages"]
    assert compared.source.startswith("the settings in the data folder")
    assert "etcd does not answer" in compared.notes[0]


def test_a_mesh_that_starts_gets_its_first_revision_and_keeps_it(mesh: Mesh) -> None:
    run_path(mesh.topology.data).unlink()
    again, note = first(mesh.changed(), mesh.topology.etcd.endpoints)
    assert again is not None
    assert (again.number, note) == (1, "")
    changed, _ = first(mesh.changed(MORE), mesh.topology.etcd.endpoints)
    assert changed is not None
    assert (changed.number, mesh.limit(), changed.changes) == (2, 2000, ("limits.queue_messages: 1000 -> 2000",))


def test_a_mesh_without_an_edge_that_owns_vehicles_does_not_start(mesh: Mesh) -> None:
    mesh.own("edge-2", "CAR-1", "CAR-2", "CAR-3")
    with pytest.raises(NotChanged, match="edge-2 has 3 vehicles"):
        first(mesh.changed((", {name: edge-2}", "")), mesh.topology.etcd.endpoints)
    mesh.own("edge-9", "CAR-4")
    with pytest.raises(NotChanged, match=r"edge-9 has 1 vehicles.*weight: 0"):
        first(mesh.changed(), mesh.topology.etcd.endpoints)
    planned_now = compare(mesh.changed(), Found(None, False)).difference
    assert planned_now is not None
    (refused,) = planned_now.changes
    assert (refused.kind, refused.why) == (Kind.REFUSED, "edge-9 has 1 vehicles")
    assert mesh.current() == 1


def test_an_embedded_etcd_has_the_first_revision_before_the_mesh_starts(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    own = load(topology(folder, 18830, 18840, ["edge-1"]))
    plan = planned(own)
    made, _ = first(own, plan.endpoints)
    assert made is not None
    again, _ = first(own, plan.endpoints)
    assert again == made
    assert of_folder(own) is None


def test_a_mesh_with_its_own_etcd_does_not_start_without_an_edge_that_owns_vehicles(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    own = load(topology(folder, 18830, 18840, ["edge-1", "edge-2"]))
    plan = planned(own)
    assert first(own, plan.endpoints)[0] is not None
    with etcd_in(etcd_folder(own.data)):
        record = b'{"edge":"edge-2","epoch":1,"pool":"standard"}'
        ask(own, plan.endpoints, lambda client: client.put(Keys(own.mesh).vehicle("CAR-1"), record))
    less = load(topology(folder, 18830, 18840, ["edge-1"]))
    with pytest.raises(NotChanged, match=r"edge-2.*edge-2 has 1 vehicles.*weight: 0"):
        first(less, plan.endpoints)
    again, _ = first(own, plan.endpoints)
    assert again is not None
    assert again.number == 1
    save_plan(replace(plan, revision=1))
    compared = compare(less, find(less))
    assert compared.notes == (
        "the mesh's own etcd does not run: 'mesh up' starts it, and counts what the removed nodes own",
    )
    assert compare(own, find(own)).notes == ()


def test_without_etcd_a_mesh_does_not_start_without_an_edge(tmp_path: Path) -> None:
    with etcd_in(tmp_path / "etcd") as server:
        mesh = Mesh(tmp_path, (server, tmp_path / "etcd"))
        save_plan(planned(mesh.topology))
        gone, same = mesh.changed((", {name: edge-2}", "")), mesh.changed()
    with pytest.raises(NotChanged, match="edge-2"):
        first(gone, mesh.topology.etcd.endpoints)
    revision, note = first(same, mesh.topology.etcd.endpoints)
    assert revision is None
    assert "etcd does not answer" in note
    assert note.endswith("the mesh starts with the settings of the file; they become a revision when it does")


def test_an_earlier_revision_comes_back(mesh: Mesh) -> None:
    with VotingNodes(mesh.topology):
        put_in_force(mesh.changed(MORE), mesh.found(), 0.0, silence)
        put_in_force(earlier(mesh.topology, mesh.found(), 1), mesh.found(), 0.0, silence)
    assert (mesh.current(), mesh.limit()) == (3, 1000)
    with pytest.raises(ValueError, match="there is no revision 9"):
        earlier(mesh.topology, mesh.found(), 9)


def row(name: str, begun: int, **more: Any) -> NodeRow:
    return NodeRow(name, "edge", "ready", begun=begun, **more)


def test_nodes_that_were_not_restarted_yet_are_pending(mesh: Mesh) -> None:
    with VotingNodes(mesh.topology):
        put_in_force(mesh.changed(("data: data", 'data: data\nbind: "127.0.0.2"')), mesh.found(), 0.0, silence)
    rows = (row("edge-1", 1), row("edge-2", 0), row("core", 2), row("door", 1), row("etcd", 1))
    left = question(mesh.topology, lambda client: revise.pending(client, mesh.name, rows))
    assert left == ["edge-1", "edge-2", "door"]
    with VotingNodes(mesh.topology):
        change = (("data: data", 'data: data\nbind: "127.0.0.2"'), MORE)
        put_in_force(mesh.changed(*change), mesh.found(), 0.0, silence)
    assert question(mesh.topology, lambda client: revise.pending(client, mesh.name, rows)) == left


def test_a_core_owns_its_sessions_and_its_spools(mesh: Mesh) -> None:
    two = replace(mesh.topology, cores=(replace(mesh.topology.cores[0], replicas=2),))
    figures = {'mesh_link_spool_messages{peer="edge-1"}': 3.0, "mesh_link_spool_bytes": 900.0}
    rows = (row("core", 1, sessions=5), row("core-2", 1, sessions=2, figures=figures))
    assert owned.sessions(two, mesh.topology, rows) == {"core-2": 5}
    assert owned.sessions(two, mesh.topology, [replace(one, state="unreachable") for one in rows]) == {}
    assert owned.sessions(two, two, rows) == {}


def test_numbers_go_on_when_etcd_has_lost_them(mesh: Mesh) -> None:
    """Nodes keep the number of their settings on disk, and take none below it."""
    save_plan(replace(planned(mesh.topology), revision=7))

    async def lose(client: EtcdClient) -> None:
        prefix = f"/mesh/{mesh.name}/settings/".encode()
        await client.delete(prefix, prefix[:-1] + b"0")

    question(mesh.topology, lose)
    with VotingNodes(mesh.topology):
        done = put_in_force(mesh.changed(MORE), mesh.found(), 0.0, silence)
    assert done.changed is not None
    assert (done.changed.revision.number, mesh.current()) == (8, 8)
    question(mesh.topology, lose)
    again, _ = first(mesh.changed(), mesh.topology.etcd.endpoints)
    assert again is not None
    assert again.number == 8
