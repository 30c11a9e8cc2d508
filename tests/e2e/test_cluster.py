"""The scenarios on a mesh that ``mesh up`` started on a real Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from urllib.request import urlopen

import pytest

from tests.e2e.scenarios.core_kill import core_is_killed
from tests.e2e.scenarios.edge_kill import edges_are_killed
from tests.e2e.scenarios.fan_out import reports_arrive_once
from tests.e2e.scenarios.map_away import etcd_is_away
from tests.e2e.scenarios.sleepers import messages_wait
from tests.e2e.scenarios.stickiness import vehicles_stay
from tests.e2e.scraping import scrape
from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.promtool import check_metrics

pytestmark = [pytest.mark.e2e, pytest.mark.ray]
VEHICLES = 200


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    port = free_port()
    running = Cluster(
        tmp_path_factory.mktemp("ray"), ["edge-1", "edge-2"], extra=f"console: 127.0.0.1:{port}",
        prometheus="127.0.0.1:0",
    )  # fmt: skip
    running.console = f"http://127.0.0.1:{port}"
    running.start()
    try:
        yield running
    finally:
        running.stop()


def test_status_tells_what_runs(mesh: Cluster) -> None:
    found = json.loads(mesh.command("status", "--json", "--topology", str(mesh.file)))
    assert [node["name"] for node in found["nodes"]] == ["etcd", "edge-1", "edge-2", "core", "door", "console"]
    assert all(node["state"] == "ready" for node in found["nodes"])
    for key in ("role", "pid", "host", "connections", "sessions", "queued"):
        assert all(key in node for node in found["nodes"])


def test_reports_arrive_once(mesh: Cluster) -> None:
    asyncio.run(reports_arrive_once(mesh, vehicles=20, messages=20))


def test_where_tells_the_edge_of_a_vehicle(mesh: Cluster) -> None:
    """Of one that the test before has connected, and of one that nobody has seen."""
    asked = ["--json", "--topology", str(mesh.file)]
    found = json.loads(mesh.command("where", "fan-00", *asked))
    assert (found["vehicle"], found["edge"]) == ("fan-00", mesh.where("fan-00"))
    assert (found["pool"], found["epoch"]) == ("standard", 1)


def test_the_console_shows_what_the_commands_tell(mesh: Cluster) -> None:
    with urlopen(f"{mesh.console}/api/status", timeout=10) as answer:
        assert [node["name"] for node in json.load(answer)["nodes"]] == ["etcd", *mesh.names(), "console"]
    with urlopen(f"{mesh.console}/api/vehicles/fan-00", timeout=10) as answer:
        assert json.load(answer)["edge"] == mesh.where("fan-00")


def targets(mesh: Cluster) -> dict[str, str]:
    """What the console tells Prometheus: the address of each node by its name."""
    with urlopen(f"{mesh.console}/api/targets", timeout=10) as answer:
        return {one["labels"]["node"]: one["targets"][0] for one in json.load(answer)}


def test_prometheus_finds_every_node_and_the_controllers_figures(mesh: Cluster) -> None:
    found = targets(mesh)
    assert set(found) == {*mesh.names(), "console"}
    for name in mesh.names():
        assert f'mesh_start_time_seconds{{mesh="{mesh.name}",node="{name}"}}' in scrape(found[name])
    text = scrape(found["console"])
    check_metrics(text)
    for name in mesh.names():
        role = name.partition("-")[0]
        assert f'mesh_node_ready{{mesh="{mesh.name}",node="{name}",role="{role}"}} 1.0' in text


def test_messages_wait(mesh: Cluster) -> None:
    asyncio.run(messages_wait(mesh, vehicles=20, messages=1000))


def test_edges_are_killed(mesh: Cluster) -> None:
    asyncio.run(edges_are_killed(mesh, VEHICLES, kills=2))


def test_core_is_killed(mesh: Cluster) -> None:
    asyncio.run(core_is_killed(mesh, vehicles=40, kills=1))


def test_etcd_is_away(mesh: Cluster) -> None:
    asyncio.run(etcd_is_away(mesh, vehicles=40, seconds=30))


def test_vehicles_stay(mesh: Cluster) -> None:
    """The mesh has a third edge afterwards."""
    asyncio.run(vehicles_stay(mesh, VEHICLES))


def test_prometheus_finds_a_node_that_was_added(mesh: Cluster) -> None:
    if "edge-3" not in mesh.names():  # the test before was left out
        mesh.add_edge("edge-3")
    assert f'mesh_start_time_seconds{{mesh="{mesh.name}",node="edge-3"}}' in scrape(targets(mesh)["edge-3"])
