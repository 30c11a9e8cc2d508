"""What Prometheus reads from a node, over a real socket."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mesh.node.metrics import Metrics, metrics_address
from mesh.topology.units import Address
from tests.node.places import place

STATUS: dict[str, object] = {
    "host": "127.0.0.1",
    "connections": 3,
    "journal": {"seconds": 0.5, "failed": ""},
    "links": {"edge-1": {"up": True}},
    "listeners": [{"port": 1883}],
}


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


async def get(port: int) -> str:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.read()
        writer.close()
    return answer.decode()


def test_the_numbers_of_the_status_are_served() -> None:
    async def run() -> str:
        metrics = Metrics(place("core-1", 'telemetry: {prometheus: "127.0.0.1:0"}'), lambda: STATUS)
        await metrics.open()
        try:
            return await get(metrics.port)
        finally:
            await metrics.close()

    answer = asyncio.run(run())
    assert answer.startswith("HTTP/1.1 200")
    labels = '{mesh="demo",node="core-1"}'
    assert [line for line in answer.partition("\r\n\r\n")[2].splitlines() if not line.startswith("#")] == [
        f"mesh_connections{labels} 3",
        f"mesh_journal_seconds{labels} 0.5",
        f"mesh_links_edge_1_up{labels} 1",
        f"mesh_listeners_0_port{labels} 1883",
    ]


def test_each_node_has_the_next_port() -> None:
    topology = place("door", 'telemetry: {prometheus: "127.0.0.1:9464"}').topology
    names = ("edge-1", "edge-2", "core-1", "core-2", "door")
    addresses = [metrics_address(topology, name) for name in names]
    assert addresses == [Address("127.0.0.1", 9464 + number) for number in range(5)]
    assert metrics_address(place("door").topology, "door") is None


def test_a_port_that_cannot_be_had_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def run(port: int, node: str) -> int:
        metrics = Metrics(place(node, f'telemetry: {{prometheus: "127.0.0.1:{port}"}}'), lambda: STATUS)
        await metrics.open()
        await metrics.close()
        return metrics.port

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert asyncio.run(run(port, "edge-1")) == 0
        assert f"no metrics: 127.0.0.1:{port} cannot be listened on" in caplog.text
    assert asyncio.run(run(65_535, "edge-2")) == 0
    assert "port 65536" in caplog.text


def test_too_many_figures_are_cut_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mesh.node.metrics.MAX_SERIES", 2)
    metrics = Metrics(place("edge-1"), lambda: {"a": 1, "b": 2, "c": 3})
    assert metrics.render() == metrics.render()
    assert "mesh_b{" in metrics.render()
    assert "mesh_c" not in metrics.render()
    assert caplog.text.count("3 figures") == 1
