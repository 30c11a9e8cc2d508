"""The edge: it owns the sessions of its vehicles.

It composes the engine, the device links of the front doors and the endpoint of the cores. What always holds: a vehicle
whose record names another edge, or a later epoch than the front door knows, is refused: this edge may be the stale one.
"""

from __future__ import annotations

import time
from typing import Final, final

from mesh.broker.inbox import InboxRules
from mesh.broker.principal import Principal
from mesh.edge.devices import Devices
from mesh.edge.status import EdgeStatus
from mesh.figures.node import NodeStatus
from mesh.node.engine import Engine, open_engine
from mesh.node.place import DEVICE, TIER, Place
from mesh.node.ports import keep_ports
from mesh.node.services import Services
from mesh.policy.access import vehicle_principal
from mesh.registry.members import Member
from mesh.transport.admission import Admission
from mesh.transport.endpoint import Endpoint
from mesh.transport.listen import Listen
from mesh.transport.refusal import Refused
from mesh.wire.packets import Subscription
from mesh.wire.reasons import SERVER_UNAVAILABLE

_CORES: Final = 1024  # connections of cores and strangers; each stranger has the time of a CONNECT


@final
class Edge:
    """One edge. ``start`` raises ``JournalError``, ``OSError`` or ``RegistryError``, each with one clear sentence."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._template = place.topology.vehicle_template()
        self._grant = place.topology.access.grant(place.topology.access.vehicles)
        self._services: Services | None = None
        self._engine: Engine | None = None
        self._devices: Devices | None = None
        self._cores: Endpoint | None = None

    async def start(self) -> None:
        """Recover the sessions, listen to front doors and cores, then announce it."""
        place = self._place
        services = self._services = Services(place)
        await services.start(_ignore)
        settings = place.engine_settings()
        settings.keep_all = True
        settings.refused = place.topology.access.vehicles.refuse
        settings.in_flight = place.topology.limits.in_flight
        settings.receive_maximum = place.topology.limits.receive_maximum
        engine, _ = await open_engine(place, services, settings, None, self._inbox())
        self._engine = engine
        ports = keep_ports(place.folder, place.topology.bind, (DEVICE, TIER))
        devices = self._devices = self._make_devices(engine, ports[DEVICE])
        cores = self._cores = self._make_endpoint(engine, ports[TIER])
        engine.broker.system.transferred = lambda: (devices.home.bytes_in, devices.home.bytes_out)
        engine.turn.add(devices.settle)
        engine.on_durable.append(devices.durable)
        engine.on_disk = self._disk
        engine.start()
        await devices.start()
        await cores.start()
        await services.announce({DEVICE: devices.port, TIER: cores.port})
        await services.show(self.status)

    def _make_devices(self, engine: Engine, port: int) -> Devices:
        place = self._place
        limits = place.topology.limits
        epoch = time.time_ns() // 1_000_000  # grows with each start, also while etcd is away
        return Devices(
            place.name, epoch, engine.broker, engine.journal, engine.turn, engine.wheel, place.prove, self._admit,
            place.device_limits(), listen=Listen(DEVICE, place.topology.bind, port), grace=limits.attach_grace,
            near=place.near(place.name, DEVICE),
        )  # fmt: skip

    def _make_endpoint(self, engine: Engine, port: int) -> Endpoint:
        place = self._place
        return Endpoint(
            place.name, engine.broker, engine.turn, engine.wheel, place.admit_core,
            listen=Listen(TIER, place.topology.bind, port), admission=Admission(place.member_limits(), _CORES),
            connect_timeout=place.topology.limits.connect_timeout, near=place.near(place.name, TIER),
        )  # fmt: skip

    def _inbox(self) -> InboxRules | None:
        inbox, template = self._place.topology.inbox, self._template
        if inbox is None:
            return None

        def subscriptions_of(vehicle: str) -> list[Subscription]:
            return [Subscription(template.fill(text, vehicle), inbox.qos) for text in inbox.subscribe]

        return InboxRules(template.vehicle_of, subscriptions_of, int(inbox.expiry))

    def _admit(self, vehicle: str, epoch: int) -> Principal:
        assert self._services is not None
        record = self._services.map.cached(vehicle)
        if record is not None and (record.edge != self._place.name or record.epoch > epoch):
            raise Refused(SERVER_UNAVAILABLE, f"it belongs to {record.edge} since epoch {record.epoch}")
        return vehicle_principal(self._template, vehicle, self._grant, self._place.topology.fleet)

    def _disk(self, writable: bool) -> None:
        for intake in (self._cores, self._devices):
            if intake is None:
                continue
            if writable:
                intake.resume()
            else:
                intake.pause()

    async def stop(self, grace: float) -> None:
        """Confirm what was taken, close the links and the journal; the vehicles stay connected to their doors."""
        if self._devices is not None:
            await self._devices.stop(grace / 2)
        if self._cores is not None:
            await self._cores.stop(grace / 4)
        if self._engine is not None:
            await self._engine.stop()
        if self._services is not None:
            await self._services.stop()

    def status(self) -> NodeStatus:
        """Figures for ``mesh status`` and metrics."""
        engine, devices, services, cores = self._engine, self._devices, self._services, self._cores
        if engine is None or devices is None or services is None or cores is None:
            return NodeStatus(host=self._place.topology.bind)
        found, links = engine.status(), devices.status()
        return EdgeStatus(
            host=self._place.topology.bind,
            metrics=services.metrics,
            detail=found.detail,
            connections=links.connections,
            sessions=found.broker.sessions,
            queued=found.broker.queued,
            engine=found,
            devices=links,
            cores=cores.status(TIER),
            services=services.status(),
        )


def _ignore(_old: Member | None, _new: Member | None) -> None:
    """An edge asks nobody; front doors and cores come to it."""
