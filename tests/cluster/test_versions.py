"""Running etcd servers with a known fault are named, each with its address."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from mesh.cluster import versions
from mesh.cluster.versions import faulty
from mesh.registry.errors import RegistryError
from mesh.topology.load import loads
from mesh.topology.topology import Topology

SMALL = """\
mesh: demo
front_doors: [{name: door, listen: [{mqtt: "127.0.0.1:1883"}]}]
cores: [{name: core, listen: [{mqtt: "127.0.0.1:1884"}]}]
pools: [{name: standard, edges: [{name: edge-1}]}]
"""
OLD, NEW, AWAY, ODD = (f"http://10.0.0.{number}:2379" for number in range(1, 5))
SERVERS = {OLD: "3.5.1", NEW: "3.5.3", ODD: "unknown"}


class FakeClient:
    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.closed = False

    async def status(self, *, timeout: float) -> SimpleNamespace:
        if self._endpoint not in SERVERS:
            raise RegistryError("no answer")
        return SimpleNamespace(version=SERVERS[self._endpoint])

    async def close(self) -> None:
        self.closed = True


def test_each_server_is_asked_and_those_with_the_fault_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    clients: list[FakeClient] = []

    def client_of(topology: Topology, endpoints: tuple[str, ...]) -> FakeClient:
        clients.append(FakeClient(*endpoints))
        return clients[-1]

    monkeypatch.setattr(versions, "client_of", client_of)
    topology = loads(f'{SMALL}etcd: ["{OLD}", "{NEW}", "{AWAY}", "{ODD}"]\n'.encode(), "t.yaml", Path("/"))
    (text,) = asyncio.run(faulty(topology, topology.etcd.endpoints))
    assert text == (
        "etcd: etcd 3.5.1 can become inconsistent in a crash under load; "
        f"use 3.5.3 or newer for more than trials ({OLD})"
    )
    assert [client.closed for client in clients] == [True] * 4
