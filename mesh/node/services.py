"""What every node runs beside its own work: the registry, the tracer and the metrics.

It knows etcd and OpenTelemetry: never MQTT. What always holds: a node starts and works without etcd, with the data it
has; everything that was opened here is closed by ``stop``, in the reverse order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, final

from mesh.broker.trace import Tracer
from mesh.figures.node import NodeStatus
from mesh.node.address import own_host
from mesh.node.closing import close_all
from mesh.node.config import NodeConfig
from mesh.node.registry import client_of
from mesh.node.status import ServicesStatus
from mesh.policy.pattern import Pattern
from mesh.registry.generation import EPOCH_BITS, Generation
from mesh.registry.keeper import GenerationKeeper
from mesh.registry.map import VehicleMap
from mesh.registry.members import Announcement, Member, Members
from mesh.registry.record import Record
from mesh.telemetry.logs import lines_lost
from mesh.telemetry.tracing import NodeTracer, open_tracer

if TYPE_CHECKING:
    from mesh.node.metrics import Metrics

_WAIT: Final = 3.0  # seconds that a start waits for etcd, which may be unavailable
_WEIGHT: Final = 100  # of an edge that is not yet in the topology of this node

log = logging.getLogger(__name__)


@final
class Services:
    """Created and started on the node's loop. ``map`` and ``members`` follow etcd; without OTLP ``tracer`` does
    nothing."""

    def __init__(self, config: NodeConfig) -> None:
        topology = config.topology
        self._config = config
        self._started = time.time()
        self._pattern = Pattern(topology.identity.pattern)
        self.client = client_of(topology, config.endpoints)
        self.map = VehicleMap(self.client, topology.mesh, limit=topology.map.cache)
        self.members = Members(self.client, topology.mesh)
        # Edges compare their sessions with the map, so they must know after a restart which map it was.
        kept = config.folder / "map.json" if config.spec.role == "edge" else None
        self.generation = Generation(self.client, topology.mesh, kept)
        self.keeper = GenerationKeeper(self.map, self.generation)
        self._tracer = self._open_tracer()
        self._announcement: Announcement | None = None
        self._metrics: Metrics | None = None

    def _open_tracer(self) -> NodeTracer | None:
        topology, spec = self._config.topology, self._config.spec
        telemetry = topology.telemetry
        if telemetry.otlp is None:
            return None
        topics = topology.vehicle_template()
        return open_tracer(
            telemetry.otlp, f"mesh-{spec.role}", spec.name, topology.mesh, telemetry.sample, topics, telemetry.watch
        )

    @property
    def tracer(self) -> Tracer:
        """The tracer of this node."""
        return self._tracer or Tracer()

    async def start(self, on_member: Callable[[Member | None, Member | None], None]) -> None:
        """Follow map and members; waits up to ``_WAIT`` seconds for etcd, then continues without it."""
        self.members.on_change = on_member
        known = await self.members.start(_WAIT)
        if not (await self.map.start(_WAIT if known else 0.0) and known):
            log.warning("etcd does not answer at %s; continuing without it", ", ".join(self._config.endpoints))
        self.keeper.start()

    async def announce(self, ports: dict[str, int]) -> None:
        """Announce this node's host and ports in etcd."""
        spec, topology = self._config.spec, self._config.topology
        host = await own_host(topology.bind, self._config.endpoints)
        self._announcement = Announcement(
            self.client, topology.mesh, name=spec.name, role=spec.role, host=host, ports=ports, pool=spec.pool
        )
        if not await self._announcement.start(_WAIT):
            log.warning("not announced in etcd yet; retrying")

    async def show(self, status: Callable[[], NodeStatus]) -> None:
        """Serve the node's ``status`` to Prometheus, if the topology has an address for it."""
        if self._config.topology.telemetry.prometheus is None:
            return
        from mesh.node.metrics import Metrics  # prometheus-client takes 5 MB: only where it is used

        metrics = self._metrics = Metrics(self._config, status)
        await metrics.open()

    @property
    def metrics(self) -> str:
        """Host and port where Prometheus reads this node; empty if it does not."""
        return "" if self._metrics is None else self._metrics.address

    def edges_of(self, pool: str) -> dict[str, float]:
        """The edges of the pool that are announced at present, with their weights."""
        weights = {edge.name: float(edge.weight) for edge in self._config.topology.edges()}
        return {
            member.name: weights.get(member.name, float(_WEIGHT))
            for member in self.members.all("edge")
            if member.pool == pool
        }

    def is_vehicle(self, name: str) -> bool:
        """Whether a vehicle may have this name; names from topics are not trusted."""
        return self._pattern.matches(name)

    def term(self, epoch: int) -> int:
        """An epoch of the present map as doors tell it to edges: of two terms, that of the later map is the higher."""
        return self.generation.number << EPOCH_BITS | epoch

    async def claim(self, vehicle: str) -> Record | None:
        """The record of a vehicle, created if there is none. ``None`` if no pool takes the vehicle."""
        pool = self._config.topology.pool_of(vehicle)
        if pool is None:
            return None
        return await self.map.claim(vehicle, pool.name, self.edges_of(pool.name))

    def status(self) -> ServicesStatus:
        """The status, for ``mesh status`` and metrics."""
        spans = None if self._tracer is None else self._tracer.status()
        return ServicesStatus(self._started, self.members.live, len(self.map), lines_lost(), spans)

    async def stop(self) -> None:
        """Withdraw the announcement and close everything."""
        metrics, announcement, tracer = self._metrics, self._announcement, self._tracer
        closings: list[Callable[[], Awaitable[None]]] = [
            self.keeper.stop, self.map.stop, self.members.stop, self.client.close
        ]
        if announcement is not None:
            closings.insert(0, announcement.stop)
        if metrics is not None:
            closings.insert(0, metrics.close)
        if tracer is not None:
            closings.append(lambda: asyncio.to_thread(tracer.close))
        await close_all(*closings)
