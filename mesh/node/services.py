"""What every node runs beside its own work: the registry, the tracer and the metrics.

It knows etcd and OpenTelemetry: never MQTT. What always holds: a node starts and works without etcd, with the data it
has; the map and the membership are followed by the same watches whatever the settings are; everything that was opened
here is closed by ``stop``, in the reverse order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, final

from mesh.broker.trace import Tracer
from mesh.figures.node import NodeStatus
from mesh.node.address import own_host
from mesh.node.closing import close_all
from mesh.node.config import DEVICE, NodeConfig
from mesh.node.endings import Endings
from mesh.node.prepared import Prepared
from mesh.node.registry import client_of
from mesh.node.scraped import Scraped
from mesh.node.secretwatch import SecretWatch
from mesh.node.status import ServicesStatus
from mesh.policy.pattern import Pattern
from mesh.policy.secrets import FILE
from mesh.registry.generation import EPOCH_BITS, Generation
from mesh.registry.keeper import GenerationKeeper
from mesh.registry.map import VehicleMap
from mesh.registry.members import Announcement, Member, Members
from mesh.registry.record import Record
from mesh.telemetry.export import Receiver
from mesh.telemetry.logs import lines_lost, log_levels, set_levels
from mesh.telemetry.tracing import NodeTracer, open_tracer, receiver_at

_WAIT: Final = 3.0  # seconds that a start waits for etcd, which may be unavailable
_ENDING: Final = 2.0  # seconds that a stop waits for what was given up before it

log = logging.getLogger(__name__)


@final
class Services:
    """Created and started on the node's loop. ``map`` and ``members`` follow etcd; without OTLP ``tracer`` does
    nothing."""

    def __init__(self, config: NodeConfig) -> None:
        topology = config.topology
        self._config = config
        self._started = time.time()
        set_levels(topology.logs.of(config.name), topology.logs.modules)
        self._pattern = Pattern(topology.identity.pattern)
        self.client = client_of(topology, config.endpoints)
        self.map = VehicleMap(self.client, topology.mesh, limit=topology.map.cache)
        self.members = Members(self.client, topology.mesh)
        # Edges compare their sessions with the map, so they must know after a restart which map it was.
        kept = config.folder / "map.json" if config.spec.role == "edge" else None
        self.generation = Generation(self.client, topology.mesh, kept)
        self.keeper = GenerationKeeper(self.map, self.generation)
        self._tracer = _open_tracer(config)
        self._announcement: Announcement | None = None
        self._scraped: Scraped | None = None
        self._endings = Endings()
        self._secret = config.secret
        self._watch = SecretWatch(topology.data / FILE, config.since, config.secret)

    @property
    def tracer(self) -> Tracer:
        """The tracer of this node."""
        return self._tracer

    async def start(self, on_member: Callable[[Member | None, Member | None], None]) -> None:
        """Follow map and members; waits up to ``_WAIT`` seconds for etcd, then continues without it."""
        self._watch.start()
        self.members.on_change = on_member
        known = await self.members.start(_WAIT)
        if not (await self.map.start(_WAIT if known else 0.0) and known):
            log.warning("etcd does not answer at %s; continuing without it", ", ".join(self._config.endpoints))
        self.keeper.start()

    def patience(self) -> float:
        """Seconds that the start of another watch waits for etcd: none if etcd did not answer a moment ago."""
        return _WAIT if self.members.live else 0.0

    async def announce(self, ports: dict[str, int]) -> None:
        """Announce this node's host and ports in etcd."""
        spec, topology = self._config.spec, self._config.topology
        host = await own_host(topology.bind, self._config.endpoints)
        self._announcement = Announcement(
            self.client, topology.mesh, name=spec.name, role=spec.role, host=host, ports=ports, pool=spec.pool
        )
        if not await self._announcement.start(_WAIT):
            log.warning("not announced in etcd yet; retrying")

    def open(self, ports: dict[str, int]) -> None:
        """Announce other ports."""
        if self._announcement is not None:
            self._announcement.update(ports=ports)

    async def show(self, status: Callable[[], NodeStatus]) -> None:
        """Serve the node's ``status`` to Prometheus, if the topology has an address for it."""
        self._scraped = Scraped(self._config, status, self._endings)
        await self._scraped.start()

    async def prepare(self, config: NodeConfig) -> Prepared:
        """Prepare other settings: the names of vehicles, pools and weights, the levels of the log, and all of
        ``telemetry`` but ``sys_interval``. Raises ``OSError`` if the address of the metrics cannot be taken."""
        telemetry = config.topology.telemetry
        with Prepared() as prepared:
            pattern = Pattern(config.topology.identity.pattern)
            prepared.add(lambda: self._take(config, pattern))
            if self._scraped is not None:
                prepared.include(await self._scraped.prepare(config))
            if telemetry.otlp != self._config.topology.telemetry.otlp:
                # In a thread: a first channel of gRPC takes longer than a turn of the loop may.
                receiver = None if telemetry.otlp is None else await asyncio.to_thread(receiver_at, telemetry.otlp)
                prepared.add(lambda: self._send_to(receiver), lambda: self._drop(receiver))
        return prepared

    def _take(self, config: NodeConfig, pattern: Pattern) -> None:
        before, self._config = self._config.topology.telemetry, config
        self._pattern = pattern
        telemetry = config.topology.telemetry
        if (telemetry.sample, telemetry.watch) != (before.sample, before.watch):
            self._tracer.sample(telemetry.sample, telemetry.watch)
        logs = config.topology.logs
        set_levels(logs.of(config.name), logs.modules)

    def _send_to(self, receiver: Receiver | None) -> None:
        self._endings.add(asyncio.to_thread(self._tracer.send_to(receiver)), "the end of an OTLP receiver")

    def _drop(self, receiver: Receiver | None) -> None:
        """End a receiver that did not come into use."""
        if receiver is not None:
            self._endings.add(asyncio.to_thread(receiver.exporter.shutdown), "the end of an OTLP receiver")

    @property
    def metrics(self) -> str:
        """Host and port where Prometheus reads this node; empty if it does not."""
        return "" if self._scraped is None else self._scraped.address

    def in_force(self) -> dict[str, object]:
        """What holds at present, by name."""
        return {
            "proofs": self._secret.marks(),
            "telemetry": {**self._tracer.in_force(), "prometheus": self.metrics},
            "pools": {
                pool.name: {"prefix": pool.prefix, "edges": {edge.name: edge.weight for edge in pool.edges}}
                for pool in self._config.topology.pools
            },
            "map": self.map.recent.limit,
            "log": log_levels(),
        }

    def edges_of(self, pool: str) -> dict[str, float]:
        """The edges that the settings in force have in this pool, with their weights: those that take vehicles at
        present. If none does, as when the only one starts again, those that are about to: a vehicle can wait for its
        edge. An edge that the settings lack is about to stop, whatever it announces."""
        weights = {
            edge.name: float(edge.weight)
            for one in self._config.topology.pools
            if one.name == pool
            for edge in one.edges
        }
        announced = [member for member in self.members.all("edge") if member.name in weights]
        taking = {member.name: weights[member.name] for member in announced if DEVICE in member.ports}
        return taking if any(taking.values()) else {member.name: weights[member.name] for member in announced}

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
        return ServicesStatus(
            self._started, self.members.live, len(self.map), lines_lost(), self._tracer.status()
        )

    async def withdraw(self) -> None:
        """Withdraw the announcement."""
        if self._announcement is not None:
            await self._announcement.stop()

    async def stop(self) -> None:
        """Withdraw the announcement and close everything."""
        scraped = self._scraped
        closings: list[Callable[[], Awaitable[None]]] = [
            self.withdraw, self._watch.stop, self.keeper.stop, self.map.stop, self.members.stop, self.client.close,
        ]
        if scraped is not None:
            closings.insert(0, scraped.stop)
        closings += [lambda: self._endings.stop(_ENDING), lambda: asyncio.to_thread(self._tracer.close)]
        await close_all(*closings)


def _open_tracer(config: NodeConfig) -> NodeTracer:
    topology, spec = config.topology, config.spec
    telemetry = topology.telemetry
    receiver = None if telemetry.otlp is None else receiver_at(telemetry.otlp)
    return open_tracer(
        receiver, f"mesh-{spec.role}", spec.name, topology.mesh, telemetry.sample, topology.vehicle_template(),
        telemetry.watch,
    )  # fmt: skip
