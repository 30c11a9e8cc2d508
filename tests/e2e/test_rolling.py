"""A rolling change of a mesh under traffic, whose controller is killed in the midst."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from mesh.cluster.run import load_run, topology_of
from mesh.node.registry import client_of
from mesh.registry.settings import Revision, SettingsStore
from mesh.topology.load import load
from mesh.topology.topology import as_dict
from tests.e2e.fleet import Fleet
from tests.support.cluster import Cluster
from tests.support.mesh import edges, replaced
from tests.support.session import session
from tests.support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.ray]
VEHICLES = 60


@pytest.fixture
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = Cluster(tmp_path_factory.mktemp("rolling"), ["edge-1", "edge-2"])
    running.start()
    try:
        yield running
    finally:
        running.stop()


async def put(mesh: Cluster, old: str, new: str) -> None:
    """Put a changed file in force, as ``mesh up`` does when all nodes have agreed."""
    text = mesh.file.read_text()
    assert old in text
    mesh.file.write_text(text.replace(old, new))
    topology = load(mesh.file)
    run = load_run(topology.data)
    assert run is not None
    client = client_of(topology_of(run), run.endpoints)
    try:
        made = Revision(0, as_dict(topology), time.time(), "tester", "here")
        await SettingsStore(client, topology.mesh).first(made)
    finally:
        await client.close()


def kill_controller(mesh: Cluster) -> None:
    run = load_run(load(mesh.file).data)
    assert run is not None
    titles = {pid: " ".join(psutil.Process(pid).cmdline()) for pid in session(run)}
    (controller,) = (pid for pid, title in titles.items() if "ray::Controller" in title)
    os.kill(controller, signal.SIGKILL)


async def edges_are_restarted_and_no_connection_is_closed(mesh: Cluster) -> None:
    fleet = Fleet(mesh, "rolling", VEHICLES)
    await fleet.connect()
    try:
        assert set(fleet.edge_of.values()) == set(edges(mesh)), "every edge must serve some vehicles"
        owners = fleet.edge_of
        others = {name: mesh.pid(name) for name in ("core", "door")}
        async with fleet.traffic():
            await fleet.rounds(2)
            before = {name: mesh.pid(name) for name in edges(mesh)}
            await put(mesh, "name: standard", "name: usual")  # an edge announces its pool when it starts
            await until(lambda: mesh.pid("edge-1") not in (0, before["edge-1"]), "a restart of edge-1")
            kill_controller(mesh)
            await until(lambda: replaced(mesh, before), "restarts of both edges")
            await fleet.rounds(2)
        assert {name: mesh.pid(name) for name in others} == others
        assert fleet.edge_of == owners
    finally:
        await fleet.leave()


def test_edges_are_restarted_and_no_connection_is_closed(mesh: Cluster) -> None:
    asyncio.run(edges_are_restarted_and_no_connection_is_closed(mesh))
