"""The edge: it owns the sessions of its vehicles.

It composes the broker, the device links of the front doors and the endpoint of the cores. What always holds: a vehicle
whose record names another edge, or a later epoch than the front door knows, is refused: another edge may be its owner
by now.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, final

from mesh.broker.broker import Broker
from mesh.broker.grant import plain
from mesh.broker.inbox import InboxRules
from mesh.broker.principal import VEHICLE, Principal
from mesh.broker.settings import IN_FLIGHT_BYTES, Settings
from mesh.edge.breadcrumb import Breadcrumb, last_crumb, lay_breadcrumb, no_breadcrumb, remove_breadcrumb
from mesh.edge.devices import MAX_LINKS, Devices
from mesh.edge.ownership import Ownership
from mesh.edge.status import EdgeStatus
from mesh.edge.suspects import Suspects
from mesh.figures.node import NodeStatus
from mesh.node.brokerhost import BrokerHost, open_broker
from mesh.node.closing import close_all
from mesh.node.config import DEVICE, TIER, NodeConfig
from mesh.node.ending import last_ending, process_token
from mesh.node.follower import SettingsFollower
from mesh.node.newest import newest
from mesh.node.packetlimits import ClientLimits
from mesh.node.poison import begin_trail, end_trail
from mesh.node.ports import keep_ports
from mesh.node.prepared import Prepared
from mesh.node.revocation import Revocation
from mesh.node.services import Services
from mesh.policy.bans import Bans
from mesh.registry.bans import VEHICLE as BY_VEHICLE
from mesh.registry.generation import EPOCH_BITS, MOST
from mesh.registry.members import Member
from mesh.registry.record import Record
from mesh.transport.admission import Admission
from mesh.transport.endpoint import Endpoint
from mesh.transport.refusal import Refused
from mesh.transport.stream import LINK_PORTION
from mesh.transport.trail import Trail
from mesh.transport.waiting import until
from mesh.wire.packets import Subscription
from mesh.wire.reasons import SERVER_UNAVAILABLE

log = logging.getLogger(__name__)

_FLEET: Final = 30.0  # seconds that an edge without vehicles waits for the fleet's retained messages
_CORES: Final = 1024  # connections of cores, and those that have not sent CONNECT yet (``connect_timeout``)


@final
class EdgeNode:
    """One edge. ``start`` raises ``JournalError``, ``OSError`` or ``RegistryError``, each with a one-sentence text."""

    def __init__(self, config: NodeConfig) -> None:
        self._configure(config)
        self._follower: SettingsFollower | None = None
        self._services: Services | None = None
        self._broker_host: BrokerHost | None = None
        self._devices: Devices | None = None
        self._cores: Endpoint | None = None
        self._ownership: Ownership | None = None
        self._bans = Bans()
        self._revocation: Revocation | None = None
        self._opening: asyncio.Task[None] | None = None  # waits until this edge may take vehicles
        self._trail: Trail | None = None

    def _configure(self, config: NodeConfig) -> None:
        self._config = config
        self._grants = config.grants()
        self._grants.standing = config.topology.identity.today()
        self._device_limits = ClientLimits(config.device_limits())
        self._member_limits = config.member_limits()  # of packets of all cores; only ever raised

    async def start(self) -> None:
        """Recover the sessions, listen for front doors and cores, then announce the ports."""
        self._configure(await newest(self._config))
        config = self._config
        services = self._services = Services(config)
        await services.start(_ignore)
        revocation = self._revocation = Revocation(
            services.client, config.topology.mesh, config.name, config.folder, self._bans, BY_VEHICLE
        )
        await revocation.start(services.patience())
        broker_host, _ = await open_broker(
            config, services, _settings(config), self._grants, None, _inbox(config)
        )
        self._broker_host = broker_host
        broker_host.broker.dispatcher.silenced = revocation.silences
        ports = keep_ports(config.folder, config.topology.bind, (DEVICE, TIER))
        self._trail = begin_trail(config.folder, last_crumb(config.folder) is not None)
        devices = self._devices = self._make_devices(broker_host, ports[DEVICE])
        cores = self._cores = self._make_endpoint(broker_host, ports[TIER])
        broker_host.broker.system.transferred = lambda: (devices.group.bytes_in, devices.group.bytes_out)
        broker_host.turn.add(devices.settle)
        broker_host.on_durable.append(devices.durable)
        broker_host.on_disk = self._disk
        broker_host.start()
        ownership = self._ownership = Ownership(
            config.name, config.spec.pool, services.map, services.client, config.topology.mesh,
            broker_host.broker.quotas, devices,
        )  # fmt: skip
        ownership.start()
        services.keeper.follow(ownership.compare)
        await devices.start()
        await cores.start()
        await self._announce(services, broker_host.broker, devices.port, cores.ports[0])
        await services.show(self.status)
        self._follower = SettingsFollower.of(services.client, config, self.prepare, self.in_force)
        await self._follower.start()

    async def prepare(self, config: NodeConfig) -> Prepared:
        """Prepare other settings. Raises ``OSError`` if an address cannot be taken."""
        broker_host, devices, cores, services = self._broker_host, self._devices, self._cores, self._services
        if broker_host is None or devices is None or cores is None or services is None:
            raise ValueError(f"{self._config.name} has not started yet")
        limits, settings, inbox = config.topology.limits, _settings(config), _inbox(config)

        def commit() -> None:
            self._config = config
            self._grants.take(config.grants())
            self._grants.standing = config.topology.identity.today()
            broker_host.broker.take(settings, inbox)
            device_limits = self._device_limits.take(config.device_limits())
            devices.limit(device_limits, limits.attach_grace, config.members(MAX_LINKS))
            cores.limit(config.members(_CORES), limits.connect_timeout, limits.packet_rate)
            cores.admission.most = config.members(_CORES)
            broker_host.turn.wake()

        prepared = Prepared()
        prepared.add(commit)
        prepared.include(await services.prepare(config))
        # Before the first node has larger packets for this one, which may be before this one's turn.
        self._member_limits.widen(config.member_limits())
        return prepared

    async def _announce(self, services: Services, broker: Broker, device: int, tier: int) -> None:
        """Announce this edge to cores and doors. One without vehicles waits until it has the fleet's retained messages:
        doors connect to it then, and it takes vehicles."""
        every = {TIER: tier, DEVICE: device}
        if any(session.kind == VEHICLE for session in broker.sessions.all()):
            await services.announce(every)
            return
        await services.announce({TIER: tier})
        if self._missing():
            self._opening = asyncio.get_running_loop().create_task(self._open(services, every), name="first vehicles")
        else:
            services.open(every)

    async def _open(self, services: Services, ports: dict[str, int]) -> None:
        if not await until(lambda: not self._missing(), _FLEET):
            log.warning(
                "%s takes vehicles without the fleet's retained messages of %s, which did not come within %d s",
                self._config.name, ", ".join(self._missing()), _FLEET,
            )  # fmt: skip
        services.open(ports)

    def _missing(self) -> list[str]:
        """The cores that run and have not given this edge the fleet's retained messages."""
        broker_host, services = self._broker_host, self._services
        if broker_host is None or services is None:
            return []
        return broker_host.broker.withheld([core.name for core in services.members.all("core")])

    def _waits(self) -> str:
        if self._opening is None or self._opening.done():
            return ""
        return f"it takes no vehicles yet: it waits for the fleet's retained messages of {', '.join(self._missing())}"

    def _make_devices(self, broker_host: BrokerHost, port: int) -> Devices:
        config = self._config
        limits = config.topology.limits
        epoch = time.time_ns() // 1_000_000  # grows with each start, also without etcd
        suspects = Suspects(config.folder / "suspects.json")
        suspects.blame(last_ending(config.folder), last_crumb(config.folder))
        return Devices(
            config.name, epoch, broker_host.broker, broker_host.journal, broker_host.turn, broker_host.wheel,
            config.secret, self._admit, self._device_limits.present, listen=config.inside(DEVICE, port),
            grace=limits.attach_grace, unix_path=config.unix_path(config.name, DEVICE),
            links=config.members(MAX_LINKS), breadcrumb=self._lay_breadcrumb(), suspects=suspects,
        )  # fmt: skip

    def _lay_breadcrumb(self) -> Breadcrumb:
        try:
            return lay_breadcrumb(self._config.folder, process_token())
        except OSError as error:
            log.warning("a packet that ends this process will not be found: %s", error)
            return no_breadcrumb()

    def _make_endpoint(self, broker_host: BrokerHost, port: int) -> Endpoint:
        config = self._config
        return Endpoint(
            config.name, broker_host.broker, broker_host.turn, broker_host.wheel, config.admit_core,
            listen=[config.inside(TIER, port)],
            admission=Admission(self._member_limits, config.members(_CORES)),
            connect_timeout=config.topology.limits.connect_timeout, packet_rate=config.topology.limits.packet_rate,
            portion=LINK_PORTION, unix_path=config.unix_path(config.name, TIER), trail=self._trail,
        )  # fmt: skip

    def _admit(self, vehicle: str, term: int, roles: tuple[str, ...] = ()) -> Principal:
        """``term``: the generation of the door's map, and the epoch of the vehicle's record in it."""
        services, ownership = self._services, self._ownership
        assert services is not None
        record = services.map.cached(vehicle)
        if record is not None and not self._may_serve(record, services.generation.number, term):
            raise Refused(SERVER_UNAVAILABLE, f"it belongs to {record.edge} since epoch {record.epoch}")
        if record is None and ownership is not None and vehicle in ownership.foreign:
            raise Refused(SERVER_UNAVAILABLE, f"it belongs to {ownership.foreign[vehicle]}")
        return self._grants.vehicle(vehicle, roles)

    def _may_serve(self, record: Record, own: int, term: int) -> bool:
        """Whether this edge may serve a vehicle. Epochs are compared only if both are of the same map. A record of an
        older map than the door's says nothing; with a record of a later one, only its edge counts."""
        generation, epoch = term >> EPOCH_BITS, term & MOST
        if generation > own:
            return True
        return record.edge == self._config.name and (generation < own or record.epoch <= epoch)

    def _disk(self, writable: bool) -> None:
        for intake in (self._cores, self._devices):
            if intake is None:
                continue
            if writable:
                intake.resume()
            else:
                intake.pause()

    async def stop(self, grace: float) -> None:
        """Confirm the handled frames, close the links and the journal; the vehicles stay connected to their doors."""
        devices, cores = self._devices, self._cores
        closings: list[Callable[[], Awaitable[None]]] = []
        if self._opening is not None:
            self._opening.cancel()
        if self._follower is not None:
            closings.append(self._follower.stop)
        if devices is not None:
            closings.append(lambda: devices.stop(grace / 2))
        if cores is not None:
            closings.append(lambda: cores.stop(grace / 4))
        for part in (self._ownership, self._broker_host, self._revocation, self._services):
            if part is not None:
                closings.append(part.stop)
        try:
            await close_all(*closings)
        finally:
            if devices is not None:  # otherwise the breadcrumb is that of the process before this one
                remove_breadcrumb(self._config.folder)
            if self._trail is not None:
                end_trail(self._config.folder)

    def in_force(self) -> dict[str, object]:
        """What holds in the parts of this edge at present, by name."""
        broker_host, devices, services, cores = self._broker_host, self._devices, self._services, self._cores
        if broker_host is None or devices is None or services is None or cores is None:
            return {}
        broker = broker_host.broker
        return {
            "broker": broker.settings.in_force(), "vehicles": self._grants.vehicles.in_force(),
            "roles": self._grants.roles.in_force(),
            "inbox": broker.inbox.rules.in_force(), "doors": devices.in_force(), "cores": cores.in_force(),
            **services.in_force(),
        }  # fmt: skip

    def status(self) -> NodeStatus:
        """The status, for ``mesh status`` and metrics."""
        broker_host, devices, services, cores = self._broker_host, self._devices, self._services, self._cores
        ownership, follower = self._ownership, self._follower
        if broker_host is None or devices is None or services is None or cores is None or ownership is None:
            return NodeStatus(revision=self._config.revision)
        found, links = broker_host.status(), devices.status()
        settings = "" if follower is None else follower.detail
        details = (self._waits(), found.detail, ownership.detail, links.detail, settings, cores.detail())
        return EdgeStatus(
            metrics=services.metrics,
            detail="; ".join(part for part in details if part),
            revision=self._config.revision if follower is None else follower.revision,
            begun=self._config.revision if follower is None else follower.begun,
            connections=links.connections,
            sessions=found.broker.sessions,
            queued=found.broker.queued,
            broker_host=found,
            devices=links,
            cores=cores.status(TIER),
            services=services.status(),
            bans=self._bans.status(),
            foreign=len(ownership.foreign),
            reclaimed=ownership.reclaimed,
        )


def _ignore(_old: Member | None, _new: Member | None) -> None:
    """Ignores membership: doors and cores dial the edge."""


def _settings(config: NodeConfig) -> Settings:
    """The settings of an edge's broker."""
    limits = config.topology.limits
    settings = config.broker_settings()
    settings.keep_all = True
    settings.refused = plain(config.topology.access.vehicles.refuse)
    settings.in_flight = limits.in_flight
    settings.receive_maximum = limits.receive_maximum
    settings.overshoot_bytes = IN_FLIGHT_BYTES + settings.tier_packet
    return settings


def _inbox(config: NodeConfig) -> InboxRules | None:
    inbox, template = config.topology.inbox, config.topology.vehicle_template()
    if inbox is None:
        return None

    def subscriptions_of(vehicle: str) -> list[Subscription]:
        return [Subscription(template.fill(text, vehicle), inbox.qos) for text in inbox.subscribe]

    return InboxRules(template.vehicle_of, subscriptions_of, int(inbox.expiry))
