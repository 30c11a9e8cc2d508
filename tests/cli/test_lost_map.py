"""A mesh whose etcd was emptied."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.cluster.lifecycle import planned
from mesh.edge.status import EdgeStatus
from mesh.node.registry import etcd_folder
from mesh.registry.client import EtcdClient
from mesh.registry.embedded import EmbeddedEtcd, client_tls, endpoint_of
from mesh.registry.keys import Keys, after
from mesh.registry.record import Record
from mesh.topology.load import load
from mesh.transport.refusal import Refused
from tests.cli.running import running_mesh
from tests.support.planned import Nodes
from tests.support.waiting import wait_until

KEYS = Keys("commands")


async def lost(folder: Path) -> None:
    """Lose all of etcd's data while no node runs, and have another edge claim CAR-1."""
    shutil.rmtree(folder / "data")
    server = EmbeddedEtcd(folder)
    await server.start()
    client = server.client()
    try:
        await client.put(KEYS.vehicle("CAR-1"), Record("CAR-1", "edge-2", "standard", 1).value())
    finally:
        await client.close()
        await server.stop()


async def emptied(folder: Path) -> None:
    """Empty the map, and have another edge claim CAR-1."""
    client = EtcdClient([endpoint_of(folder)], tls=client_tls(folder))
    try:
        await client.delete(KEYS.generation)
        await client.delete(KEYS.vehicles, after(KEYS.vehicles))
        await client.put(KEYS.vehicle("CAR-1"), Record("CAR-1", "edge-2", "standard", 1).value())
    finally:
        await client.close()


def test_edge_claims_its_vehicles_again_and_names_those_of_another_edge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_mesh(tmp_path) as file:

        def where(vehicle: str) -> dict[str, object]:
            capsys.readouterr()
            main(["where", vehicle, "--topology", str(file), "--json"])
            found: dict[str, object] = json.loads(capsys.readouterr().out)
            return found

        for vehicle in ("CAR-1", "CAR-2"):
            assert main(["pub", f"vehicles/{vehicle}/cmd/x", "waits", "--topology", str(file)]) == 0
            assert (where(vehicle)["edge"], where(vehicle)["kept_by"]) == ("edge-1", [])
        asyncio.run(emptied(etcd_folder(load(file).data)))
        wait_until(lambda: where("CAR-2")["edge"] == "edge-1", "CAR-2 is claimed again")
        wait_until(lambda: where("CAR-1")["kept_by"] == ["edge-1"], "CAR-1 is named")
        assert where("CAR-1")["edge"] == "edge-2"
        assert main(["where", "CAR-1", "--topology", str(file)]) == 0
        assert "edge-1 owned it before, does not serve it, and keeps what waits" in capsys.readouterr().out


def test_edge_that_was_away_when_the_map_was_lost_keeps_what_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_mesh(tmp_path) as file:
        for vehicle in ("CAR-1", "CAR-2"):
            assert main(["pub", f"vehicles/{vehicle}/cmd/x", "waits", "--topology", str(file)]) == 0
    topology = load(file)
    asyncio.run(lost(etcd_folder(topology.data)))
    nodes = Nodes(planned(topology))
    try:
        nodes.start()
        edge = nodes.node("edge-1")

        def status() -> EdgeStatus:
            found = edge.status()
            assert isinstance(found, EdgeStatus)
            return found

        wait_until(lambda: (status().foreign, status().reclaimed) == (1, 1), "the comparison with the map")
        assert "CAR-1 (edge-2)" in status().detail
        assert status().queued == 2
        with pytest.raises(Refused, match="it belongs to edge-2"):
            edge._admit("CAR-1", 1)
        assert edge._admit("CAR-2", 1).vehicle == "CAR-2"
    finally:
        nodes.stop()
