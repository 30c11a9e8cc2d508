"""The addresses that a node announces, without etcd."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from mesh.frontdoor.status import DoorStatus
from mesh.node import services
from mesh.node.config import DEVICE, TIER
from mesh.node.services import Services
from mesh.registry.members import Announcement, Member, Members
from tests.node.scraping import DOOR, get
from tests.support.configs import config
from tests.support.ports import free_port


def test_node_bound_to_a_wildcard_announces_a_reachable_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_WAIT", 0.0)

    async def run() -> str:
        node = Services(config("edge-1", 'bind: "0.0.0.0"\n'))
        with patch.object(services, "Announcement", wraps=Announcement) as announcement:
            await node.announce({"device": 1, "tier": 2})
        await node.stop()
        return str(announcement.call_args.kwargs["host"])

    assert asyncio.run(run()) == "127.0.0.1"


def test_metrics_are_served_until_the_node_stops() -> None:
    async def run(port: int) -> None:
        node = Services(config("edge-1", f'telemetry: {{prometheus: "127.0.0.1:{port}"}}\n'))
        await node.show(lambda: DoorStatus(door=DOOR.door, attempts=DOOR.attempts, services=node.status()))
        assert node.metrics == f"127.0.0.1:{port}"
        assert 'mesh_map_records{mesh="demo",node="edge-1"} 0' in await get(port)
        await node.stop()
        with pytest.raises(OSError, match=str(port)):
            await get(port)

    asyncio.run(run(free_port()))


def edges_for_new_vehicles(*announced: Member) -> dict[str, float]:
    async def run() -> dict[str, float]:
        node = Services(config("door"))
        with patch.object(Members, "all", return_value=announced):
            found = node.edges_of("standard")
        await node.stop()
        return found

    return asyncio.run(run())


def edge(name: str, pool: str = "standard", port: str = DEVICE) -> Member:
    return Member(name, "edge", "127.0.0.1", {port: 7001}, 1, 1, pool)


def test_new_vehicles_get_edges_of_the_settings_in_force_alone() -> None:
    """A removed edge is announced until it stops, and an edge that is moved has its old pool until it starts again."""
    found = edges_for_new_vehicles(edge("edge-1"), edge("edge-2", "old"), edge("edge-9"))
    assert found == {"edge-1": 100.0, "edge-2": 100.0}


def test_new_vehicles_wait_for_an_edge_only_if_no_other_takes_them() -> None:
    """The only edge of a pool has no port for doors until it has the fleet's retained messages."""
    assert edges_for_new_vehicles(edge("edge-1"), edge("edge-2", port=TIER)) == {"edge-1": 100.0}
    assert edges_for_new_vehicles(edge("edge-1", port=TIER)) == {"edge-1": 100.0}
