"""The address of a node's metrics, which changes while the node serves, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable

import pytest

from mesh.figures.node import NodeStatus
from mesh.node import scraped as scraped_module
from mesh.node.config import NodeConfig
from mesh.node.endings import Endings
from mesh.node.scraped import Scraped
from tests.node.scraping import DOOR, get
from tests.support import configs, loop
from tests.support.configs import config
from tests.support.ports import free_range
from tests.support.waiting import until
from tools import ROOT


def at(port: int, name: str = "door", host: str = "127.0.0.1") -> NodeConfig:
    return config(name, f'telemetry: {{prometheus: "{host}:{port}"}}' if port else "")


def more_edges(monkeypatch: pytest.MonkeyPatch, port: int, name: str) -> NodeConfig:
    """The same with one more edge, so that each core and door has the next port."""
    with monkeypatch.context() as patch:
        patch.setattr(configs, "TOPOLOGY", configs.TOPOLOGY.replace("{name: edge-2}", "{name: edge-2}, {name: edge-3}"))
        return at(port, name)


class Served:
    """The metrics of some nodes."""

    def __init__(self) -> None:
        self.endings = Endings()
        self.nodes: dict[str, Scraped] = {}

    async def start(self, *configs: NodeConfig) -> None:
        for one in configs:
            node = self.nodes[one.name] = Scraped(one, status, self.endings)
            await node.start()

    async def change(self, *configs: NodeConfig) -> None:
        prepared = [await self.nodes[one.name].prepare(one) for one in configs]
        for change in prepared:
            change.commit()

    async def stop(self) -> None:
        for node in self.nodes.values():
            await node.stop()
        await self.endings.stop(5.0)


def status() -> NodeStatus:
    return DOOR


def served(main: Callable[[Served], Awaitable[None]]) -> None:
    async def run() -> None:
        nodes = Served()
        try:
            await main(nodes)
        finally:
            await nodes.stop()

    loop.run(run())


async def answers(port: int, name: str = "door") -> bool:
    """Whether the metrics of this node are at this port."""
    try:
        return f'node="{name}"' in await get(port)
    except OSError:
        return False


def own(first: int, name: str) -> int:
    return first + ["edge-1", "edge-2", "core", "core-2", "door"].index(name)


def test_the_metrics_move_and_are_no_longer_at_the_old_address() -> None:
    first, second = free_range(5), free_range(5)

    async def main(nodes: Served) -> None:
        await nodes.start(at(first))
        node = nodes.nodes["door"]
        change = await node.prepare(at(second))
        assert await answers(own(first, "door"))
        assert node.address == f"127.0.0.1:{own(first, 'door')}"
        change.commit()
        assert node.address == f"127.0.0.1:{own(second, 'door')}"
        assert await answers(own(second, "door"))
        with pytest.raises(OSError, match="refused"):
            await get(own(first, "door"))

    served(main)


def test_a_request_at_the_old_address_is_still_answered() -> None:
    first, second = free_range(5), free_range(5)

    async def main(nodes: Served) -> None:
        await nodes.start(at(first))
        reader, writer = await asyncio.open_connection("127.0.0.1", own(first, "door"))
        writer.write(b"GET /metrics HTTP/1.1\r\n")
        exposition = nodes.nodes["door"]._present._exposition
        await until(lambda: exposition._open, "the node has the connection")
        await nodes.change(at(second))
        writer.write(b"Host: localhost\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()

    served(main)


def test_metrics_come_and_go() -> None:
    first = free_range(5)

    async def main(nodes: Served) -> None:
        await nodes.start(at(0))
        node = nodes.nodes["door"]
        assert node.address == ""
        await nodes.change(at(first))
        assert await answers(own(first, "door"))
        await nodes.change(at(0))
        assert node.address == ""
        await until(lambda: not nodes.endings._tasks, "the listener has ended")
        assert not await answers(own(first, "door"))

    served(main)


def test_prometheus_client_is_loaded_only_where_there_is_an_address() -> None:
    code = f"""
import asyncio, sys
import mesh  # the one under test, before the checkout is in the path
sys.path.insert(0, {str(ROOT)!r})
from mesh.node.endings import Endings
from mesh.node.scraped import Scraped
from tests.support.configs import config
node = Scraped(config("door"), lambda: None, Endings())
async def run():
    await node.start()
    (await node.prepare(config("door", "limits: {{sessions: 5}}"))).commit()
asyncio.run(run())
assert "prometheus_client" not in sys.modules
"""

    async def run() -> int:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
        return await process.wait()

    assert asyncio.run(run()) == 0


def test_a_withdrawn_change_gives_the_address_back() -> None:
    first, second = free_range(5), free_range(5)

    async def main(nodes: Served) -> None:
        await nodes.start(at(first))
        (await nodes.nodes["door"].prepare(at(second))).withdraw()
        await until(lambda: not nodes.endings._tasks, "the listener has ended")
        assert not await answers(own(second, "door"))
        assert await answers(own(first, "door"))

    served(main)


def test_an_address_that_another_program_has_is_refused_and_the_old_one_stays() -> None:
    first, second = free_range(5), free_range(5)

    async def main(nodes: Served) -> None:
        await nodes.start(at(first))
        with (
            socket.create_server(("127.0.0.1", own(second, "door"))),
            pytest.raises(OSError, match=f"door: no metrics at 127.0.0.1:{own(second, 'door')}: .*in use"),
        ):
            await nodes.change(at(second))
        assert await answers(own(first, "door"))

    served(main)


@pytest.mark.parametrize("order", [("core", "core-2", "door"), ("door", "core-2", "core")])
def test_the_ports_of_the_nodes_after_an_added_one_move(
    monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    """Each node gets the port of the one after it, whatever order they commit in."""
    first = free_range(6)

    async def main(nodes: Served) -> None:
        await nodes.start(*(at(first, name) for name in ("edge-1", *order)))
        await nodes.change(*(more_edges(monkeypatch, first, name) for name in ("edge-1", *order)))
        for name in order:
            port = own(first, name) + 1
            await until(lambda name=name, port=port: nodes.nodes[name].address == f"127.0.0.1:{port}", f"{name} moved")
            assert await answers(port, name)
        assert await answers(first, "edge-1")
        assert not await answers(own(first, "core"), "core")

    served(main)


def test_a_port_that_does_not_become_free_is_replaced_by_another_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A node that hangs keeps the port that the next one should get."""
    monkeypatch.setattr(scraped_module, "_FREE", 0.1)
    first = free_range(6)

    async def main(nodes: Served) -> None:
        await nodes.start(at(first, "core-2"), at(first, "door"))
        await nodes.change(more_edges(monkeypatch, first, "core-2"))
        await until(lambda: nodes.nodes["core-2"].address, "it has an address")
        assert nodes.nodes["core-2"].address == f"127.0.0.1:{own(first, 'door') + 1}"

    with caplog.at_level(logging.INFO):
        served(main)
    assert f"no metrics at 127.0.0.1:{own(first, 'door')}" in caplog.text


def test_a_node_that_waits_for_a_port_may_stop_or_change_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_range(6)

    async def main(nodes: Served) -> None:
        await nodes.start(at(first, "core-2"), at(first, "door"))
        await nodes.change(more_edges(monkeypatch, first, "core-2"))
        assert nodes.nodes["core-2"].address == ""
        await nodes.change(at(first, "core-2"))
        assert await answers(own(first, "core-2"), "core-2")
        await until(lambda: not nodes.endings._tasks, "it does not wait for the other port")
        await nodes.change(more_edges(monkeypatch, first, "core-2"))

    served(main)


def test_a_free_port_stays_one() -> None:
    async def main(nodes: Served) -> None:
        await nodes.start(config("door", 'telemetry: {prometheus: "127.0.0.1:0"}'))
        address = nodes.nodes["door"].address
        await nodes.change(config("door", 'telemetry: {prometheus: "127.0.0.1:0", sample: 0.5}'))
        assert nodes.nodes["door"].address == address
        await nodes.change(at(free_range(5)))
        assert nodes.nodes["door"].address != address

    served(main)


