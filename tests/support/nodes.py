"""One mesh of real nodes in one process and one loop: a door, an edge, a core, and a real etcd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.core import node as core_room
from mesh.core.node import CoreNode
from mesh.edge.node import EdgeNode
from mesh.frontdoor import node as door_room
from mesh.frontdoor.node import DoorNode
from mesh.node.config import NodeConfig
from mesh.policy.secrets import MeshSecret
from mesh.registry.embedded import EmbeddedEtcd
from mesh.topology.load import loads
from mesh.topology.nodes import nodes
from mesh.topology.topology import EtcdSpec, LogsSpec, Topology
from mesh.wire.packets import MQTT5, Connect, Publish, SubAck, Subscribe, Subscription
from mesh.wire.properties import Properties
from tests.support.bare import Bare
from tests.support.loop import run
from tests.support.waiting import until

TEXT = """
mesh: live
etcd: ["http://127.0.0.1:2379"]
identity: {from: username, pattern: "[A-Z0-9-]{1,32}"}
topics: {vehicle: "vehicles/{vehicle}/#", fleet: ["fleet/#"]}
front_doors: [{name: door, listen: [{mqtt: "127.0.0.1:0"}]}]
cores: [{name: core, listen: [{mqtt: "127.0.0.1:0"}]}]
backends: {anonymous: true, users: [{user: app, password: right}, {user: old, password: right}]}
pools: [{name: standard, edges: [{name: edge-1}]}]
"""

Change = Callable[[Topology], Topology]


class Nodes:
    """``edge``, ``core`` and ``door`` run with ``topology``. ``sections`` replace those of ``TEXT``."""

    def __init__(self, etcd: EmbeddedEtcd, more: str, sections: Mapping[str, str]) -> None:
        data = etcd.log_file.parent.parent
        text = "".join(line for line in TEXT.splitlines(True) if line.partition(":")[0] not in sections)
        text += "".join(f"{name}: {section}\n" for name, section in sections.items())
        topology = loads((text + more).encode(), "mesh.yaml", Path("."))
        self.topology = replace(topology, etcd=EtcdSpec(), data=data)
        self.endpoint = etcd.endpoint
        self.clients: list[Bare] = []
        self.edge = EdgeNode(self.config("edge-1"))
        self.core = CoreNode(self.config("core"))
        self.door = DoorNode(self.config("door"))

    def config(self, name: str) -> NodeConfig:
        return self.config_of(self.topology, name)

    def config_of(self, topology: Topology, name: str) -> NodeConfig:
        folder = self.topology.data / name
        folder.mkdir(mode=0o700, exist_ok=True)
        spec = next(spec for spec in nodes(topology) if spec.name == name)
        return NodeConfig(topology, spec, (self.endpoint,), folder, MeshSecret(b"s" * 32))

    async def start(self) -> None:
        for node in (self.edge, self.core, self.door):
            await node.start()
        await until(lambda: self.core._links["edge-1"].up, "the link of the core")

    async def stop(self) -> None:
        for client in self.clients:
            await client.close()
        for node in (self.door, self.core, self.edge):
            await node.stop(0.2)

    async def change(self, change: Change) -> None:
        """Change the settings of all nodes."""
        self.topology = change(self.topology)
        await self._prepare("edge-1", "core", "door")

    async def telemetry(self, **values: Any) -> None:
        """Change the telemetry of all nodes."""
        await self.change(lambda topology: replace(topology, telemetry=replace(topology.telemetry, **values)))

    async def logs(self, logs: LogsSpec) -> None:
        """Change the levels of all nodes' logs."""
        self.topology = replace(self.topology, logs=logs)
        await self._prepare("edge-1", "core", "door")

    async def _prepare(self, *names: str) -> None:
        nodes: dict[str, EdgeNode | CoreNode | DoorNode] = {"edge-1": self.edge, "core": self.core, "door": self.door}
        prepared = [await nodes[name].prepare(self.config(name)) for name in names]
        for one in prepared:
            one.commit()

    async def limits(self, **values: Any) -> None:
        await self.change(lambda topology: replace(topology, limits=replace(topology.limits, **values)))

    @property
    def backends(self) -> int:
        """The port of the core."""
        clients = self.core._clients
        assert clients is not None
        assert clients._endpoint is not None
        return clients._endpoint.ports[0]

    @property
    def vehicles(self) -> int:
        """The port of the door."""
        assert self.door._door is not None
        return self.door._door.ports[0]

    async def vehicle(self, name: str, *filters: str, protocol: int = MQTT5, expiry: int = 0) -> Bare:
        client = Bare(protocol)
        self.clients.append(client)
        properties = Properties()
        properties.session_expiry = expiry
        await client.hello(self.vehicles, name, properties=properties if protocol == MQTT5 else None)
        return await subscribed(client, *filters)

    async def backend(self, client_id: str, *filters: str, protocol: int = MQTT5, expiry: int = 0) -> Bare:
        """An anonymous back end: its user name is its client id."""
        client = Bare(protocol)
        self.clients.append(client)
        properties = Properties()
        properties.session_expiry = expiry
        await client.hello(self.backends, client_id, properties=properties if protocol == MQTT5 else None)
        return await subscribed(client, *filters)

    async def knock(
        self, client_id: str, user: str | None, password: bytes | None = None, protocol: int = MQTT5
    ) -> Bare:
        """A back end that sends CONNECT; the caller looks at the answer."""
        client = await Bare(protocol).connect(self.backends)
        self.clients.append(client)
        client.send(Connect(protocol, client_id, username=user, password=password))
        return client


async def subscribed(client: Bare, *filters: str) -> Bare:
    if filters:
        client.send(Subscribe(1, [Subscription(filter, 1) for filter in filters]))
        assert (await client.wait(SubAck)).reasons == [1] * len(filters)
    return client


def publish(client: Bare, topic: str, payload: bytes = b"x", packet_id: int = 1, qos: int = 1) -> None:
    client.send(Publish(topic, payload, qos, False, False, packet_id if qos else 0))


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path_factory.mktemp("etcd") / "etcd")
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@contextmanager
def at_once() -> Iterator[None]:
    """Nodes do not wait for the others of the mesh."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core_room, "_FIRST_LINKS", 0.0)
        patch.setattr(door_room, "_FIRST_EDGES", 0.0)
        yield


@asynccontextmanager
async def running(etcd: EmbeddedEtcd, more: str, sections: Mapping[str, str]) -> AsyncIterator[Nodes]:
    mesh = Nodes(etcd, more, sections)
    try:
        with at_once():
            await mesh.start()
        yield mesh
    finally:
        await mesh.stop()


def with_nodes(etcd: EmbeddedEtcd, main: Callable[[Nodes], Any], more: str = "", **sections: str) -> None:
    """Run ``main`` with a running mesh; ``more`` is appended to the topology, and ``sections`` replace its own."""

    async def whole() -> None:
        async with running(etcd, more, sections) as mesh:
            await main(mesh)

    run(whole())
