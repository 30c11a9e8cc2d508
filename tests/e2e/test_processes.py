"""The scenarios on a mesh without Ray, whose nodes are processes of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e.processes import Processes
from tests.e2e.scenarios.edge_kill import edges_are_killed

pytestmark = pytest.mark.e2e
VEHICLES = 200


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    running = Processes(tmp_path_factory.mktemp("mesh"), ["edge-1", "edge-2"])
    try:
        running.start()
        yield running
    finally:
        running.stop()


def test_edges_are_killed(mesh: Processes) -> None:
    asyncio.run(edges_are_killed(mesh, VEHICLES, kills=3))
