"""The metrics that a node serves, over a real socket."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mesh.figures.node import NodeStatus
from mesh.node import metrics as metrics_module
from mesh.node.metrics import Metrics
from mesh.topology.nodes import metrics_addresses
from mesh.topology.units import Address
from tests.node.scraping import DOOR, get
from tests.support.configs import config
from tests.support.ports import free_range


def door_status() -> NodeStatus:
    return DOOR


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def made(name: str, port: int) -> Metrics:
    return Metrics(config(name, f'telemetry: {{prometheus: "127.0.0.1:{port}"}}'), door_status)


def test_metrics_serve_the_figures_of_the_status() -> None:
    async def run() -> str:
        metrics = made("door", 0)
        await metrics.open()
        try:
            return await get(port_of(metrics.address))
        finally:
            await metrics.close()

    head, _, text = asyncio.run(run()).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200")
    assert "Content-Type: text/plain; version=0.0.4" in head
    lines = text.splitlines()
    assert 'mesh_relayed_packets_total{direction="upstream",mesh="demo",node="door"} 7.0' in lines
    assert 'mesh_connections_held{link="client",mesh="demo",node="door",reason="link"} 1.0' in lines
    assert 'mesh_start_time_seconds{mesh="demo",node="door"} 1.5' in lines


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:9464", 200), ("[::1]:9464", 200), ("127.0.0.2", 200), ("evil.example", 421),
        ("127.0.0.1.evil.example:9464", 421), ("10.0.0.1", 421), ("[", 421), ("", 421),
    ],
)  # fmt: skip
def test_metrics_on_loopback_answer_no_foreign_web_page(host: str, status: int) -> None:
    """A page could resolve its own name to 127.0.0.1 and read the metrics through a browser of this machine."""

    async def run() -> str:
        metrics = made("door", 0)
        await metrics.open()
        try:
            return await get(port_of(metrics.address), host)
        finally:
            await metrics.close()

    assert asyncio.run(run()).startswith(f"HTTP/1.1 {status} ")


def test_metrics_that_other_machines_can_reach_have_any_name() -> None:
    async def run() -> str:
        metrics = Metrics(config("door", 'telemetry: {prometheus: "0.0.0.0:0"}'), door_status)
        await metrics.open()
        try:
            return await get(port_of(metrics.address), "door-1.internal:9464")
        finally:
            await metrics.close()

    assert asyncio.run(run()).startswith("HTTP/1.1 200 ")


def test_each_node_gets_the_next_metrics_port() -> None:
    topology = config("door", 'telemetry: {prometheus: "127.0.0.1:9464"}').topology
    names = ("edge-1", "edge-2", "core", "core-2", "door")
    addresses = {name: Address("127.0.0.1", 9464 + number) for number, name in enumerate(names)}
    assert metrics_addresses(topology) == addresses
    assert metrics_addresses(config("door").topology) == {}
    anywhere = metrics_addresses(config("door", 'telemetry: {prometheus: "127.0.0.1:0"}').topology)
    assert set(anywhere.values()) == {Address("127.0.0.1", 0)}


def test_node_takes_the_next_metrics_port_if_its_own_is_taken() -> None:
    """A node that was added to the topology has the port of a node that is still running."""

    async def run(first: int) -> None:
        running = [made(name, first) for name in ("edge-1", "edge-2", "core", "core-2")]
        added = made("edge-2", first)
        try:
            for metrics in running:
                await metrics.open()
            await added.open()
            assert added.address == f"127.0.0.1:{first + 4}"
            assert "200 OK" in await get(first + 4)
        finally:
            for metrics in (*running, added):
                await metrics.close()

    asyncio.run(run(free_range(5)))


def test_node_works_without_a_metrics_port(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(port: int) -> str:
        metrics = made("edge-1", port)
        await metrics.open()
        await metrics.close()
        return metrics.address

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        monkeypatch.setattr(metrics_module, "choices", lambda _place: [Address("127.0.0.1", port)])
        assert asyncio.run(run(port)) == ""
    assert f"no metrics at 127.0.0.1:{port}" in caplog.text
    assert "none of the 1 ports from" in caplog.text


def test_wildcard_is_shown_as_a_reachable_address() -> None:
    async def run() -> str:
        metrics = Metrics(config("door", 'telemetry: {prometheus: "0.0.0.0:0"}'), door_status)
        await metrics.open()
        try:
            assert "200 OK" in await get(port_of(metrics.address))
            return metrics.address
        finally:
            await metrics.close()

    assert asyncio.run(run()).startswith("127.0.0.1:")
