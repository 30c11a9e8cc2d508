"""The console as a node: its address follows the settings, over real sockets and a real etcd."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

import aiohttp
import pytest

from mesh.console.node import ConsoleNode
from mesh.node.config import NodeConfig
from mesh.policy.secrets import MeshSecret
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.settings import Revision, SettingsStore
from mesh.topology.load import loads
from mesh.topology.nodes import spec_of
from mesh.topology.topology import EtcdSpec, as_dict
from mesh.topology.units import Address
from tests.support.effects import effect_of
from tests.support.loop import run
from tests.support.nodes import TEXT, etcd
from tests.support.ports import free_port, free_ports
from tests.support.waiting import until

__all__ = ["etcd"]  # a fixture


def config(etcd: EmbeddedEtcd, mesh: str, port: int, host: str = "127.0.0.1") -> NodeConfig:
    topology = loads(TEXT.encode(), "mesh.yaml", etcd.log_file.parent)
    data = etcd.log_file.parent.parent
    topology = replace(topology, mesh=mesh, etcd=EtcdSpec(), data=data, console=Address(host, port))
    spec = spec_of(topology, "console")
    assert spec is not None
    folder = data / "nodes" / mesh
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return NodeConfig(topology, spec, (etcd.endpoint,), folder, MeshSecret(b"s" * 32))


async def answers(port: int) -> bool:
    """Whether a console is at this port."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/healthz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def served(first: NodeConfig, main: Callable[[ConsoleNode], Awaitable[None]]) -> None:
    async def whole() -> None:
        node = ConsoleNode(first, first.topology.data)
        try:
            await node.start()
            await main(node)
        finally:
            await node.stop(2.0)

    run(whole())


@effect_of("console")
def test_the_console_moves_and_is_no_longer_at_the_old_address(etcd: EmbeddedEtcd) -> None:
    old, new = free_ports(2)

    async def main(node: ConsoleNode) -> None:
        prepared = await node.prepare(config(etcd, "moves", new))
        assert (await answers(old), await answers(new)) == (True, False)
        prepared.commit()
        assert await answers(new)
        await until(lambda: not node._endings._tasks, "the old listener has ended")
        assert not await answers(old)
        (await node.prepare(config(etcd, "moves", new))).commit()
        assert await answers(new)

    served(config(etcd, "moves", old), main)


def test_a_withdrawn_change_gives_the_address_back(etcd: EmbeddedEtcd) -> None:
    old, new = free_ports(2)

    async def main(node: ConsoleNode) -> None:
        (await node.prepare(config(etcd, "stays", new))).withdraw()
        await until(lambda: not node._endings._tasks, "the listener has ended")
        socket.create_server(("127.0.0.1", new)).close()
        assert await answers(old)

    served(config(etcd, "stays", old), main)


def test_an_address_that_another_program_has_is_refused(etcd: EmbeddedEtcd) -> None:
    old, new = free_ports(2)

    async def main(node: ConsoleNode) -> None:
        with socket.create_server(("127.0.0.1", new)), pytest.raises(OSError, match="in use"):
            await node.prepare(config(etcd, "taken", new))
        assert await answers(old)

    served(config(etcd, "taken", old), main)


def test_the_console_is_opened_to_other_machines_at_the_same_port(etcd: EmbeddedEtcd) -> None:
    port = free_port()

    async def main(node: ConsoleNode) -> None:
        (await node.prepare(config(etcd, "wider", port, "0.0.0.0"))).commit()
        await until(lambda: not node._endings._tasks, "the new one listens")
        assert node._console._server.sockets[0].getsockname()[0] == "0.0.0.0"
        assert await answers(port)

    served(config(etcd, "wider", port), main)


def test_the_console_takes_a_revision_that_is_in_force_and_confirms_it(etcd: EmbeddedEtcd) -> None:
    old, new = free_ports(2)

    async def main(node: ConsoleNode) -> None:
        client = node._client
        assert client is not None
        store = SettingsStore(client, "follows")
        settings = as_dict(config(etcd, "follows", new).topology)
        await store.first(Revision(0, settings, 1.0, "tester", "here"))
        async with asyncio.timeout(20.0):
            while "console" not in await store.confirmed():
                await asyncio.sleep(0.02)
        assert (await answers(new), node.status().revision, node.status().detail) == (True, 1, "")

    served(config(etcd, "follows", old), main)
