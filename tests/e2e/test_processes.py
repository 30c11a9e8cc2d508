"""The scenarios on a mesh without Ray; every node is a process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.bench.plan import SCENARIOS
from mesh.bench.run import measure
from tests.e2e.scenarios.core_kill import traffic_survives_a_killed_core
from tests.e2e.scenarios.edge_kill import traffic_survives_killed_edges
from tests.e2e.scenarios.etcd_outage import traffic_survives_an_etcd_outage
from tests.e2e.scenarios.fan_out import reports_arrive_once
from tests.e2e.scenarios.full_queues import a_flood_is_not_refused, a_slow_vehicle_stalls_no_back_end
from tests.e2e.scenarios.malformed_clients import malformed_clients_are_disconnected
from tests.e2e.scenarios.sleepers import queued_messages_survive_killed_edges
from tests.e2e.scenarios.stickiness import vehicles_keep_their_edge
from tests.support.processes import Processes

pytestmark = [pytest.mark.e2e, pytest.mark.long]
VEHICLES = 200


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("mesh"), ["edge-1", "edge-2"]) as running:
        yield running


def test_reports_arrive_once(mesh: Processes) -> None:
    asyncio.run(reports_arrive_once(mesh, vehicles=20, messages=50))


def test_malformed_clients_are_disconnected(mesh: Processes) -> None:
    asyncio.run(malformed_clients_are_disconnected(mesh))


def test_queued_messages_survive_killed_edges(mesh: Processes) -> None:
    asyncio.run(queued_messages_survive_killed_edges(mesh, vehicles=20, messages=1000))


def test_traffic_survives_killed_edges(mesh: Processes) -> None:
    asyncio.run(traffic_survives_killed_edges(mesh, VEHICLES, kills=3))


def test_traffic_survives_a_killed_core(mesh: Processes) -> None:
    asyncio.run(traffic_survives_a_killed_core(mesh, vehicles=40, kills=2))


def test_traffic_survives_an_etcd_outage(mesh: Processes) -> None:
    asyncio.run(traffic_survives_an_etcd_outage(mesh, vehicles=40, seconds=5))


def test_vehicles_keep_their_edge(mesh: Processes) -> None:
    """This must be the last test: it adds a third edge to the mesh."""
    asyncio.run(vehicles_keep_their_edge(mesh, VEHICLES))


@pytest.mark.parametrize("limits", ["", "queue_messages: 10"])
def test_a_flood_is_not_refused(tmp_path: Path, limits: str) -> None:
    with Processes(tmp_path / "flood", ["edge-1"], extra=f"limits: {{{limits}}}") as mesh:
        asyncio.run(a_flood_is_not_refused(mesh, messages=10_000, window=1000))


def test_a_slow_vehicle_stalls_no_back_end(tmp_path: Path) -> None:
    limits = "limits: {queue_messages: 10, receive_maximum: 50, queue_patience: 2s}"
    with Processes(tmp_path / "slow", ["edge-1"], extra=limits) as mesh:
        asyncio.run(a_slow_vehicle_stalls_no_back_end(mesh, cars=5, backends=3, messages=300))


def test_mesh_bench_works_without_a_rate(tmp_path: Path) -> None:
    """At default limits, and with a pattern for the vehicles' names."""
    pattern = "[A-Z0-9]{3,32}"
    with Processes(tmp_path / "bench", ["edge-1"], identity=f'{{from: username, pattern: "{pattern}"}}') as mesh:
        doors, cores = ("127.0.0.1", mesh.vehicles), ("127.0.0.1", mesh.backends)
        for name in ("down-1x100", "down-20x20", "up-20x20"):
            plan = replace(SCENARIOS[name], names=pattern)
            result = measure(plan, doors, cores, {}, seconds=2.0, warm_up=0.5)
            assert result.received == result.sent > 1000
            assert (result.lost, result.missing, result.lost_connections) == (0, 0, 0)
