"""The scenarios on a mesh without Ray, whose nodes are processes of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e.scenarios.core_kill import core_is_killed
from tests.e2e.scenarios.edge_kill import edges_are_killed
from tests.e2e.scenarios.fan_out import reports_arrive_once
from tests.e2e.scenarios.map_away import etcd_is_away
from tests.e2e.scenarios.sleepers import messages_wait
from tests.e2e.scenarios.stickiness import vehicles_stay
from tests.e2e.scenarios.strangers import strangers_are_shown_out
from tests.support.processes import Processes

pytestmark = pytest.mark.e2e
VEHICLES = 200


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("mesh"), ["edge-1", "edge-2"]) as running:
        yield running


def test_reports_arrive_once(mesh: Processes) -> None:
    asyncio.run(reports_arrive_once(mesh, vehicles=20, messages=50))


def test_strangers_are_shown_out(mesh: Processes) -> None:
    asyncio.run(strangers_are_shown_out(mesh))


def test_messages_wait(mesh: Processes) -> None:
    asyncio.run(messages_wait(mesh, vehicles=20, messages=1000))


def test_edges_are_killed(mesh: Processes) -> None:
    asyncio.run(edges_are_killed(mesh, VEHICLES, kills=3))


def test_core_is_killed(mesh: Processes) -> None:
    asyncio.run(core_is_killed(mesh, vehicles=40, kills=2))


def test_etcd_is_away(mesh: Processes) -> None:
    asyncio.run(etcd_is_away(mesh, vehicles=40, seconds=5))


def test_vehicles_stay(mesh: Processes) -> None:
    """The last one: the mesh has a third edge afterwards."""
    asyncio.run(vehicles_stay(mesh, VEHICLES))
