"""The scenarios on a mesh that ``mesh up`` has started on a real Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from urllib.request import urlopen

import pytest

from tests.e2e.scenarios.core_kill import traffic_survives_a_killed_core
from tests.e2e.scenarios.edge_kill import traffic_survives_killed_edges
from tests.e2e.scenarios.etcd_outage import traffic_survives_an_etcd_outage
from tests.e2e.scenarios.fan_out import reports_arrive_once
from tests.e2e.scenarios.sleepers import queued_messages_survive_killed_edges
from tests.e2e.scenarios.stickiness import vehicles_keep_their_edge
from tests.e2e.scraping import scrape
from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.promtool import check_metrics

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.long]
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


def test_status_lists_every_node(mesh: Cluster) -> None:
    found = json.loads(mesh.command("status", "--json", "--topology", str(mesh.file)))
    assert [node["name"] for node in found["nodes"]] == ["etcd", "edge-1", "edge-2", "core", "door", "console"]
    assert all(node["state"] == "ready" for node in found["nodes"])
    for key in ("role", "pid", "host", "connections", "sessions", "queued"):
        assert all(key in node for node in found["nodes"])


def test_reports_arrive_once(mesh: Cluster) -> None:
    asyncio.run(reports_arrive_once(mesh, vehicles=20, messages=20))


def test_where_prints_the_edge_of_a_vehicle(mesh: Cluster) -> None:
    """The vehicle was connected by the test before."""
    asked = ["--json", "--topology", str(mesh.file)]
    found = json.loads(mesh.command("where", "fan-00", *asked))
    assert (found["vehicle"], found["edge"]) == ("fan-00", mesh.where("fan-00"))
    assert (found["pool"], found["epoch"]) == ("standard", 1)


def test_console_agrees_with_the_commands(mesh: Cluster) -> None:
    with urlopen(f"{mesh.console}/api/status", timeout=10) as answer:
        assert [node["name"] for node in json.load(answer)["nodes"]] == ["etcd", *mesh.names(), "console"]
    with urlopen(f"{mesh.console}/api/vehicles/fan-00", timeout=10) as answer:
        assert json.load(answer)["edge"] == mesh.where("fan-00")


def targets(mesh: Cluster) -> dict[str, str]:
    """The targets that the console gives to Prometheus: the address of each node by its name."""
    with urlopen(f"{mesh.console}/api/targets", timeout=10) as answer:
        return {one["labels"]["node"]: one["targets"][0] for one in json.load(answer)}


def test_prometheus_finds_every_node_and_the_controller(mesh: Cluster) -> None:
    found = targets(mesh)
    assert set(found) == {*mesh.names(), "console"}
    for name in mesh.names():
        assert f'mesh_start_time_seconds{{mesh="{mesh.name}",node="{name}"}}' in scrape(found[name])
    text = scrape(found["console"])
    check_metrics(text)
    for name in mesh.names():
        role = name.partition("-")[0]
        assert f'mesh_node_ready{{mesh="{mesh.name}",node="{name}",role="{role}"}} 1.0' in text


def test_queued_messages_survive_killed_edges(mesh: Cluster) -> None:
    asyncio.run(queued_messages_survive_killed_edges(mesh, vehicles=20, messages=1000))


def test_traffic_survives_killed_edges(mesh: Cluster) -> None:
    asyncio.run(traffic_survives_killed_edges(mesh, VEHICLES, kills=2))


def test_traffic_survives_a_killed_core(mesh: Cluster) -> None:
    asyncio.run(traffic_survives_a_killed_core(mesh, vehicles=40, kills=1))


def test_traffic_survives_an_etcd_outage(mesh: Cluster) -> None:
    asyncio.run(traffic_survives_an_etcd_outage(mesh, vehicles=40, seconds=30))


def test_vehicles_keep_their_edge(mesh: Cluster) -> None:
    """This adds a third edge to the mesh."""
    asyncio.run(vehicles_keep_their_edge(mesh, VEHICLES))


def test_prometheus_finds_an_added_node(mesh: Cluster) -> None:
    if "edge-3" not in mesh.names():  # the test before did not run
        mesh.add_edge("edge-3")
    assert f'mesh_start_time_seconds{{mesh="{mesh.name}",node="edge-3"}}' in scrape(targets(mesh)["edge-3"])
