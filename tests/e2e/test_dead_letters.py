"""Dead letters on a mesh of processes."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.scenarios.dead_letters import commands_survive_kills, reports_survive_kills
from tests.support.processes import Processes

pytestmark = pytest.mark.e2e

LIMITS = "limits: {queue_messages: 10, tier_queue_messages: 3}"


def test_acknowledged_messages_without_room_survive_kills(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Processes(tmp_path_factory.mktemp("letters"), ["edge-1"], extra=LIMITS) as mesh:
        asyncio.run(commands_survive_kills(mesh, queue=10, kills=3))
        asyncio.run(reports_survive_kills(mesh, reports=30))
