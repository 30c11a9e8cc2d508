"""An edge that is added to a running mesh: it has the fleet's retained messages before it takes vehicles."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.edge import node as edge_room
from mesh.edge.node import EdgeNode
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.members import Member
from mesh.topology.topology import EdgeSpec, Topology
from mesh.wire.packets import PUBACK, Publish
from tests.support.nodes import Nodes, etcd, with_nodes
from tests.support.waiting import until

__all__ = ["etcd"]  # a fixture

COUNT = 300  # more than a core gives at a time


def with_second(topology: Topology) -> Topology:
    pool = topology.pools[0]
    return replace(topology, pools=(replace(pool, edges=(*pool.edges, EdgeSpec(name="edge-2"))),))


async def retain(mesh: Nodes) -> None:
    backend = await mesh.backend("b")
    for number in range(1, COUNT + 1):
        backend.send(Publish(f"fleet/{number}", b"x", 1, True, False, number))
    await backend.acked(PUBACK, range(1, COUNT + 1))


def fleet_of(edge: EdgeNode) -> int:
    """How many retained messages an edge has."""
    assert edge._broker_host is not None
    return len(edge._broker_host.broker.retained.items("fleet/#"))


def test_an_added_edge_has_the_retained_messages_before_it_takes_vehicles(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        await retain(mesh)
        await mesh.change(with_second)
        added = EdgeNode(mesh.config("edge-2"))
        core = mesh.core._services
        assert core is not None
        first: list[int] = []
        follow = core.members.on_change

        def look(old: Member | None, new: Member | None) -> None:
            follow(old, new)
            if "edge-2" in core.edges_of("standard") and not first:
                first.append(fleet_of(added))

        core.members.on_change = look
        await added.start()
        try:
            await until(lambda: first, "an edge that takes vehicles")
            assert first == [COUNT]
            assert "edge-2" not in added.status().detail
        finally:
            await added.stop(0.2)

    with_nodes(etcd, main)


def test_an_added_edge_waits_for_a_core_that_does_not_come_no_longer_than_it_may(
    etcd: EmbeddedEtcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_room, "_FLEET", 1.0)

    async def main(mesh: Nodes) -> None:
        core = mesh.core._services
        assert core is not None
        added = EdgeNode(mesh.config_of(with_second(mesh.topology), "edge-2"))
        monkeypatch.setattr(mesh.core, "_member", lambda old, new: None)  # the core does not connect to it
        core.members.on_change = lambda old, new: None
        await added.start()
        try:
            services = added._services
            assert services is not None
            assert services.edges_of("standard") == {"edge-1": 100.0}
            assert "the fleet's retained messages of core" in added.status().detail
            await until(lambda: "edge-2" in services.edges_of("standard"), "an edge that takes vehicles")
            assert "retained" not in added.status().detail
        finally:
            await added.stop(0.2)

    with_nodes(etcd, main)


def test_an_edge_takes_vehicles_when_no_core_runs(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        await mesh.core.stop(0.2)
        added = EdgeNode(mesh.config_of(with_second(mesh.topology), "edge-2"))
        await added.start()
        try:
            services = added._services
            assert services is not None
            await until(lambda: "edge-2" in services.edges_of("standard"), "an edge that takes vehicles", 5.0)
        finally:
            await added.stop(0.2)

    with_nodes(etcd, main)


def test_an_edge_that_has_sessions_of_vehicles_does_not_wait(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        vehicle = await mesh.vehicle("V1", expiry=1000)
        await vehicle.close()
        await mesh.edge.stop(0.2)
        mesh.edge = EdgeNode(mesh.config("edge-1"))
        await mesh.edge.start()
        services = mesh.edge._services
        assert services is not None
        await until(lambda: services.edges_of("standard"), "an edge that takes vehicles", 5.0)
        assert "retained" not in mesh.edge.status().detail

    with_nodes(etcd, main)
