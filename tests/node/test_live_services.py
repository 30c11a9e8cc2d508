"""What the services of real nodes take while they serve: pools and weights, traces and metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.node.config import DEVICE, NodeConfig
from mesh.node.services import Services
from mesh.policy.secrets import MeshSecret
from mesh.registry.embedded import EmbeddedEtcd
from mesh.registry.members import Announcement
from mesh.telemetry.logs import Logs
from mesh.topology.load import loads
from mesh.topology.nodes import nodes
from mesh.topology.topology import EtcdSpec, LogsSpec
from mesh.topology.units import Address
from mesh.wire.packets import Publish
from tests.node.scraping import get
from tests.support.bare import Bare
from tests.support.effects import effect_of
from tests.support.nodes import TEXT, Nodes, etcd, publish, with_nodes
from tests.support.ports import free_range
from tests.support.waiting import until
from tools.tracing.collector import Collector

__all__ = ["etcd"]  # a fixture

POOLS = TEXT.partition("pools:")[0]
STANDARD = "{name: standard, edges: [{name: edge-1}, {name: edge-2}]}"
VANS = '{name: vans, match: {prefix: "VAN"}, edges: [{name: edge-3}]}'


@pytest.fixture
def collectors() -> Iterator[tuple[Collector, Collector]]:
    both = Collector(), Collector()
    yield both
    for one in both:
        one.close()


def traced(collector: Collector, vehicle: str) -> int:
    """The traces of messages of a vehicle at this receiver."""
    return len({span.trace_id for span in collector.spans() if span.attributes.get("mesh.vehicle") == vehicle})


def names(collector: Collector) -> set[str]:
    """The nodes that have sent spans."""
    return {span.node for span in collector.spans()}


async def report(vehicle: Bare, name: str, backend: Bare) -> None:
    """A message of a vehicle, which has reached the back end."""
    before = sum(isinstance(packet, Publish) for packet in backend.packets)
    publish(vehicle, f"vehicles/{name}/report", qos=0)
    await until(lambda: sum(isinstance(packet, Publish) for packet in backend.packets) > before, "the message came")


@effect_of("telemetry.otlp")
def test_spans_go_to_the_new_receiver_only(etcd: EmbeddedEtcd, collectors: tuple[Collector, Collector]) -> None:
    first, second = collectors

    async def main(mesh: Nodes) -> None:
        backend = await mesh.backend("erp", "vehicles/#")
        vehicle = await mesh.vehicle("V1")
        await report(vehicle, "V1", backend)
        await until(lambda: names(first) == {"edge-1", "core"}, "both nodes send spans")
        await mesh.telemetry(otlp=second.endpoint)
        await until(lambda: not any(one._services._endings._tasks for one in (mesh.edge, mesh.core, mesh.door)))
        before = len(first.spans())
        await report(vehicle, "V1", backend)
        later = await mesh.vehicle("V2")
        await report(later, "V2", backend)
        await until(lambda: traced(second, "V1") and traced(second, "V2"), "the spans are there")
        await until(lambda: names(second) == {"edge-1", "core"}, "both nodes send spans there")
        assert len(first.spans()) == before

    with_nodes(etcd, main, f"telemetry: {{otlp: '{first.endpoint}', sample: 1}}\n")


@effect_of("telemetry.otlp")
def test_tracing_comes_and_goes(etcd: EmbeddedEtcd, collectors: tuple[Collector, Collector]) -> None:
    first, _ = collectors

    async def main(mesh: Nodes) -> None:
        backend = await mesh.backend("erp", "vehicles/#")
        vehicle = await mesh.vehicle("V1")
        await report(vehicle, "V1", backend)
        assert mesh.edge.status().services.spans is None
        await mesh.telemetry(otlp=first.endpoint)
        await report(vehicle, "V1", backend)
        await mesh.telemetry(otlp=None)  # what waits is sent before
        assert mesh.edge.status().services.spans is None
        await until(lambda: names(first) == {"edge-1", "core"}, "both nodes have sent their spans")
        await report(vehicle, "V1", backend)
        await until(lambda: not mesh.edge._services._endings._tasks)
        assert traced(first, "V1") == 1

    with_nodes(etcd, main)


@effect_of("telemetry.sample", "telemetry.watch")
def test_a_watched_vehicle_and_a_share_of_all_messages_are_traced(
    etcd: EmbeddedEtcd, collectors: tuple[Collector, Collector]
) -> None:
    first, _ = collectors

    async def main(mesh: Nodes) -> None:
        backend = await mesh.backend("erp", "vehicles/#")
        vehicles = {name: await mesh.vehicle(name) for name in ("V1", "V2")}
        for name, vehicle in vehicles.items():
            await report(vehicle, name, backend)
        await mesh.telemetry(watch=("V1",))
        for name, vehicle in vehicles.items():
            await report(vehicle, name, backend)
        await until(lambda: names(first) == {"edge-1", "core"}, "both nodes have sent their spans")
        assert (traced(first, "V1"), traced(first, "V2")) == (1, 0)
        await mesh.telemetry(watch=(), sample=1.0)
        for name, vehicle in vehicles.items():
            await report(vehicle, name, backend)
        await until(lambda: (traced(first, "V1"), traced(first, "V2")) == (2, 1), "all are traced")
        await mesh.telemetry(sample=0.0)
        for name, vehicle in vehicles.items():
            await report(vehicle, name, backend)
        assert mesh.edge._services._tracer.flush()
        assert (traced(first, "V1"), traced(first, "V2")) == (2, 1)

    with_nodes(etcd, main, f"telemetry: {{otlp: '{first.endpoint}', sample: 0}}\n")


@effect_of("telemetry.prometheus")
def test_the_metrics_of_all_nodes_move(etcd: EmbeddedEtcd) -> None:
    first, second = free_range(3), free_range(3)

    async def main(mesh: Nodes) -> None:
        await mesh.telemetry(prometheus=Address("127.0.0.1", second))
        for number, node in enumerate((mesh.edge, mesh.core, mesh.door)):
            assert node.status().metrics == f"127.0.0.1:{second + number}"
            assert 'mesh="live"' in await get(second + number)
            await until(lambda node=node: not node._services._endings._tasks)
            with pytest.raises(OSError, match="refused"):
                await get(first + number)

    with_nodes(etcd, main, f"telemetry: {{prometheus: '127.0.0.1:{first}'}}\n")


@effect_of("logs.level", "logs.nodes", "logs.modules")
def test_lines_below_the_old_level_are_in_the_log(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    path = tmp_path / "edge-1.log"
    written = Logs(path)

    async def main(mesh: Nodes) -> None:
        def said(name: str) -> bool:
            logging.getLogger(name).debug("a line of %s", name)
            written.drain(5.0)
            lines = path.read_text().splitlines()
            return any(line.endswith(f"DEBUG   {name}: a line of {name}") for line in lines)

        async def take(logs: LogsSpec) -> None:
            await mesh.logs(logs)
            path.write_text("")

        assert not said("mesh.broker")
        await take(LogsSpec(level="debug"))
        assert said("mesh.broker")
        await take(LogsSpec(modules={"mesh.core": "debug"}))
        assert (said("mesh.broker"), said("mesh.core")) == (False, True)
        await take(LogsSpec(nodes=dict.fromkeys(("edge-1", "core", "door"), "debug")))
        assert said("mesh.broker")
        await take(LogsSpec())
        assert not said("mesh.broker")

    try:
        with_nodes(etcd, main)
    finally:
        written.close()


def config(etcd: EmbeddedEtcd, *pools: str) -> NodeConfig:
    """A door's configuration with these pools."""
    topology = loads(f"{POOLS}pools: [{', '.join(pools)}]\n".encode(), "mesh.yaml", etcd.log_file.parent)
    topology = replace(topology, mesh="pools", etcd=EtcdSpec(), data=etcd.log_file.parent.parent)
    spec = next(spec for spec in nodes(topology) if spec.name == "door")
    return NodeConfig(topology, spec, (etcd.endpoint,), topology.data / "door", MeshSecret(b"s" * 32))


@asynccontextmanager
async def announced(services: Services, **pools: str) -> AsyncIterator[None]:
    """These edges, with their pools, are members of the mesh."""
    edges = [
        Announcement(
            services.client,
            "pools",
            name=name.replace("_", "-"),
            role="edge",
            host="127.0.0.1",
            ports={DEVICE: 7001},
            pool=pool,
        )
        for name, pool in pools.items()
    ]
    for edge in edges:
        await edge.start(10.0)
    await until(lambda: len(services.members.all("edge")) == len(edges), "the edges are known")
    yield
    for edge in edges:
        await edge.stop()


@effect_of("pools", "pools.prefix", "pools.edges.weight")
def test_a_mapped_vehicle_stays_and_new_ones_follow_the_new_rules(etcd: EmbeddedEtcd) -> None:
    async def edge_of(services: Services, vehicle: str) -> tuple[str, str]:
        record = await services.claim(vehicle)
        assert record is not None
        return record.pool, record.edge

    async def take(services: Services, *pools: str) -> None:
        (await services.prepare(config(etcd, *pools))).commit()

    async def run() -> None:
        services = Services(config(etcd, STANDARD.replace("name: edge-2", "name: edge-2, weight: 0")))
        await services.start(lambda old, new: None)
        async with announced(services, edge_1="standard", edge_2="standard", edge_3="vans"):
            assert [await edge_of(services, name) for name in ("VAN1", "V1")] == 2 * [("standard", "edge-1")]
            await take(services, VANS, STANDARD.replace("name: edge-1", "name: edge-1, weight: 0"))
            assert services.map.cached("VAN1") is not None
            assert await edge_of(services, "VAN1") == ("standard", "edge-1")
            assert await edge_of(services, "V1") == ("standard", "edge-1")
            assert await edge_of(services, "VAN2") == ("vans", "edge-3")
            assert await edge_of(services, "V2") == ("standard", "edge-2")
            await take(services, VANS.replace("VAN", "LORRY"), STANDARD)
            assert await edge_of(services, "VAN2") == ("vans", "edge-3")
            assert (await edge_of(services, "VAN3"))[0] == "standard"
            assert await edge_of(services, "LORRY1") == ("vans", "edge-3")
            await take(services, STANDARD)
            assert await edge_of(services, "LORRY1") == ("vans", "edge-3")
            assert (await edge_of(services, "LORRY2"))[0] == "standard"
            assert len(services.map) == 7
        await services.stop()

    asyncio.run(run())


def test_names_of_vehicles(etcd: EmbeddedEtcd) -> None:
    """Doors are restarted for another rule; cores have to know the new names, too."""

    async def main(mesh: Nodes) -> None:
        services = mesh.core._services
        assert services is not None
        assert (services.is_vehicle("V1"), services.is_vehicle("car")) == (True, False)
        identity = replace(mesh.topology.identity, pattern="[a-z]{1,32}")
        await mesh.change(lambda topology: replace(topology, identity=identity))
        assert (services.is_vehicle("V1"), services.is_vehicle("car")) == (False, True)

    with_nodes(etcd, main)
