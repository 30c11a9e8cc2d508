"""The core: the endpoint of back-end applications.

It composes the broker, the router and a tier link for every edge. What always holds: every edge that the topology or
the membership names has a link, so that messages for it wait in its spool while it is disconnected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, final

from mesh.broker.gate import Gate
from mesh.broker.grant import plain
from mesh.broker.settings import Settings
from mesh.core.clients import BackEndClients
from mesh.core.owners import MapOwners
from mesh.core.recovery import CoreItems
from mesh.core.router import Router
from mesh.core.socket import TierSocket
from mesh.core.spool import Spool
from mesh.core.status import CoreStatus
from mesh.core.tier import TierLink
from mesh.core.upstream import Upstream
from mesh.core.withdrawals import Withdrawals
from mesh.figures.node import NodeStatus
from mesh.node.brokerhost import BrokerHost, open_broker
from mesh.node.closing import close_all, close_together
from mesh.node.config import TIER, NodeConfig
from mesh.node.follower import SettingsFollower
from mesh.node.newest import newest
from mesh.node.poison import begin_trail, end_trail
from mesh.node.prepared import Prepared
from mesh.node.revocation import Revocation
from mesh.node.services import Services
from mesh.policy.bans import Bans
from mesh.registry.bans import USER
from mesh.registry.members import Member
from mesh.registry.record import Record
from mesh.transport.dialler import Address, Dialler
from mesh.transport.stream import LINK_PORTION, StreamGroup
from mesh.transport.trail import Trail
from mesh.transport.unixsocket import Secure
from mesh.transport.waiting import until
from mesh.wire.topics import is_shared

log = logging.getLogger(__name__)

# Bytes that wait to be written to an edge before messages for it wait in their queue.
_WRITE_BUFFER: Final = 1 << 20
_FIRST_LINKS: Final = 5.0  # seconds that a start waits for the edges, so that a ready core reaches them


@final
class CoreNode:
    """One core. ``start`` raises ``JournalError``, ``OSError`` or ``RegistryError``, each with one clear sentence."""

    def __init__(self, config: NodeConfig) -> None:
        self._configure(config)
        self._follower: SettingsFollower | None = None
        self._services: Services | None = None
        self._broker_host: BrokerHost | None = None
        self._router: Router | None = None
        self._withdrawals: Withdrawals | None = None
        self._upstream: Upstream | None = None
        self._links: dict[str, TierLink] = {}
        self._diallers: dict[str, Dialler] = {}
        self._addresses: dict[str, Address] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._kept = CoreItems(())
        self._group: StreamGroup | None = None
        self._clients: BackEndClients | None = None
        self._bans = Bans()
        self._revocation: Revocation | None = None
        self._owners: MapOwners | None = None
        self._trail: Trail | None = None
        self._secure: Secure | None = None

    def _configure(self, config: NodeConfig) -> None:
        self._config = config
        self._grants = config.grants()
        self._member_limits = config.member_limits()  # of packets of all edges; only ever raised

    async def start(self) -> None:
        """Recover, connect to the edges, then listen to back ends."""
        self._configure(await newest(self._config))
        config = self._config
        self._secure = config.secure()
        # A mistake is named before anything is opened.
        clients = self._clients = BackEndClients(config, self._grants, self._bans)
        self._trail = begin_trail(config.folder)
        services = self._services = Services(config)
        look_up = _look_up(services, config)
        owners = self._owners = MapOwners(services.map.recent, services.is_vehicle, look_up)
        self._router = Router(
            config.vehicle_of(), config.topology.fleet, owners, self._links, self._link_to, self._wake
        )
        broker_host, other = await open_broker(
            config, services, _settings(config), self._grants, self._router, None
        )
        self._broker_host = broker_host
        self._router.broker = broker_host.broker
        withdrawals = self._withdrawals = self._router.withdrawals = Withdrawals(
            broker_host.broker, owners, self._links, self._link_to, self._router.looks_up, self._wake
        )
        loop = asyncio.get_running_loop()
        self._group = StreamGroup(loop, broker_host.wheel, high=_WRITE_BUFFER, portion=LINK_PORTION)
        self._kept = CoreItems(other)
        withdrawals.restore(self._kept.withdrawn, config.vehicle_of())
        self._upstream = self._follow_interest(broker_host)
        broker_host.broker.system.transferred = clients.transferred
        broker_host.turn.add(self._flush)
        broker_host.pressing = self._pressing
        broker_host.on_durable.append(self._durable)
        broker_host.on_tick.append(self._tick)
        broker_host.broker.courier.slowdown.released = self._released
        broker_host.on_disk = self._disk
        broker_host.start()
        await services.start(self._member)
        self._revocation = Revocation(
            services.client, config.topology.mesh, config.name, config.folder, self._bans, USER, broker_host.expel
        )
        broker_host.broker.dispatcher.silenced = self._revocation.silences
        await self._revocation.start(services.patience())
        for edge in [*self._kept.links, *(edge.name for edge in config.topology.edges())]:
            self._link_to(edge)
        if services.members.live:
            self._drop_absent()
        withdrawals.begin()
        await self._wait_for_links()
        await clients.listen(config, broker_host, self._trail)
        await services.announce({})
        await services.show(self.status)
        self._follower = SettingsFollower.of(services.client, config, self.prepare, self.in_force)
        await self._follower.start()

    async def prepare(self, config: NodeConfig) -> Prepared:
        """Prepare other settings. Raises ``OSError`` if an address cannot be taken, or if this process may not open as
        many files as they ask for."""
        broker_host, clients, owners, router = self._broker_host, self._clients, self._owners, self._router
        services = self._services
        if broker_host is None or clients is None or owners is None or router is None or services is None:
            raise ValueError(f"{self._config.name} has not started yet")
        look_up, broker = _look_up(services, config), broker_host.broker

        def commit() -> None:
            self._config = config
            self._grants.take(config.grants())
            broker.take(_settings(config))
            owners.look_up = look_up
            router.fleet = config.topology.fleet
            self._change_links(config)
            broker_host.turn.wake()

        with Prepared() as prepared:
            prepared.add(commit)
            prepared.include(await clients.prepare(config))
            prepared.include(await services.prepare(config))
        # Before the first node has larger packets for this one, which may be before this one's turn.
        self._member_limits.widen(config.member_limits())
        return prepared

    def _change_links(self, config: NodeConfig) -> None:
        limits = config.topology.limits
        size = config.member_limits().max_packet_size
        for edge in config.topology.edges():
            self._link_to(edge.name)
        self._drop_absent()
        for link in self._links.values():
            link.take(
                limits.owner_timeout, limits.queue_patience, limits.spool_messages, limits.spool_bytes,
                config.topology.fleet,
            )  # fmt: skip
            link.widen(size)

    def _follow_interest(self, broker_host: BrokerHost) -> Upstream:
        upstream = Upstream(broker_host.journal, self._interest, lambda filter: any(
            link.has(filter) for link in self._links.values()
        ))  # fmt: skip
        upstream.restore(self._kept.identifiers)
        for filter in broker_host.broker.subscriptions.filters():
            upstream.wanted(filter)
        broker_host.broker.subscriptions.listener = upstream
        return upstream

    async def _wait_for_links(self) -> None:
        await until(lambda: all(link.up for link in self._links.values()), _FIRST_LINKS)

    # Links

    def _link_to(self, edge: str) -> TierLink:
        """The link to an edge, made if it is missing. The edge need not be running."""
        link = self._links.get(edge)
        if link is None:
            assert self._broker_host is not None
            link = self._links[edge] = self._make_link(edge, self._broker_host)
            dialler = self._diallers[edge] = self._make_dialler(link, self._broker_host)
            dialler.start()
        return link

    def _drop_absent(self) -> None:
        """Drop the links to edges that neither the topology nor the membership names. They own no vehicles, or they
        could not have been removed."""
        broker_host, services = self._broker_host, self._services
        if broker_host is None or services is None:
            return
        named = {edge.name for edge in self._config.topology.edges()}
        named.update(member.name for member in services.members.all("edge"))
        for edge in [edge for edge in self._links if edge not in named]:
            log.info("%s: there is no edge %s now: its link is removed", self._config.name, edge)
            link, dialler = self._links.pop(edge), self._diallers.pop(edge)
            self._addresses.pop(edge, None)
            link.abort()
            ending = asyncio.get_running_loop().create_task(dialler.stop(), name=f"end of the link to {edge}")
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            broker_host.broker.work.add(link.discard())
            self._wake()

    def _make_link(self, edge: str, broker_host: BrokerHost) -> TierLink:
        assert self._upstream is not None
        config = self._config
        limits = config.topology.limits
        spool = Spool(broker_host.journal, edge, limits.spool_messages, limits.spool_bytes)
        link = TierLink(
            edge, config.name, lambda: config.tier_password(edge), broker_host.broker, self._upstream, spool,
            self._member_limits, limits.owner_timeout, limits.queue_patience, broker_host.turn,
            config.topology.fleet, self._trail,
        )  # fmt: skip
        kept = self._kept.links.pop(edge, None)
        if kept is not None:
            link.restore(kept.spooled, kept.filters, kept.incoming, kept.given)
        return link

    def _make_dialler(self, link: TierLink, broker_host: BrokerHost) -> Dialler:
        config, edge, group = self._config, link.edge, self._group
        assert group is not None

        def make() -> TierSocket:
            return TierSocket(group, link, broker_host.turn, dialler.welcomed)

        dialler = Dialler(
            config.name, f"edge {edge}", lambda: self._addresses.get(edge), config.unix_path(edge, TIER), make,
            self._secure,
        )  # fmt: skip
        return dialler

    def _member(self, old: Member | None, new: Member | None) -> None:
        """Membership changed. An edge that has left keeps its address: its lease may expire while it restarts."""
        if new is None:
            self._drop_absent()
            return
        if new.role != "edge" or TIER not in new.ports:
            return
        before = self._addresses.get(new.name)
        address = self._addresses[new.name] = (new.host, new.ports[TIER])
        self._link_to(new.name)
        dialler = self._diallers[new.name]
        if before is None or before == address:
            dialler.poke()
        else:
            dialler.moved()

    def _interest(self, filter: str, wanted: bool) -> Gate | None:
        if not wanted and not is_shared(filter) and self._broker_host is not None:
            self._broker_host.broker.dispatcher.forget_retained(filter)
        gate = Gate(0)
        for link in self._links.values():
            if wanted:
                link.want(filter, gate)
            else:
                link.unwant(filter)
        self._wake()
        return gate if gate.pending else None

    # The turn

    def _wake(self) -> None:
        if self._broker_host is not None:
            self._broker_host.turn.wake()

    def _pressing(self) -> bool:
        return any(link.waits() for link in self._links.values())

    def _flush(self) -> None:
        for link in self._links.values():
            link.flush()

    def _durable(self, position: int) -> None:
        for link in self._links.values():
            link.advance()

    def _released(self) -> None:
        for link in self._links.values():
            link.advance()

    def _tick(self) -> None:
        for link in list(self._links.values()):
            try:
                link.tick()
            except Exception:
                log.exception("the tick of the link to edge %s failed; the other links go on", link.edge)
        if self._withdrawals is not None:
            self._withdrawals.tick()

    def _disk(self, writable: bool) -> None:
        if self._clients is None:
            return
        if writable:
            self._clients.resume()
        else:
            self._clients.pause()

    async def stop(self, grace: float) -> None:
        """Tell the back ends, close the links and the journal."""
        clients = self._clients
        closings: list[Callable[[], Awaitable[None]]] = [self._stop_links]
        if clients is not None:
            closings.insert(0, lambda: clients.stop(grace / 2))
        if self._follower is not None:
            closings.insert(0, self._follower.stop)
        if self._revocation is not None:
            closings.insert(0, self._revocation.stop)
        for part in (self._withdrawals, self._router, self._broker_host, self._services):
            if part is not None:
                closings.append(part.stop)
        try:
            await close_all(*closings)
        finally:
            if self._trail is not None:
                end_trail(self._config.folder)

    async def _stop_links(self) -> None:
        try:
            await close_together(dialler.stop() for dialler in self._diallers.values())
            await asyncio.gather(*self._endings, return_exceptions=True)
        finally:
            for link in self._links.values():
                link.abort()

    def in_force(self) -> dict[str, object]:
        """What holds in the parts of this core at present, by name."""
        broker_host, clients, router, services = self._broker_host, self._clients, self._router, self._services
        if broker_host is None or clients is None or router is None or services is None:
            return {}
        return {
            "broker": broker_host.broker.settings.in_force(), "backends": self._grants.backends.in_force(),
            "roles": self._grants.roles.in_force(),
            "clients": clients.in_force(), "fleet": router.fleet,
            "edges": {edge: link.in_force() for edge, link in sorted(self._links.items())},
            **services.in_force(),
        }  # fmt: skip

    def status(self) -> NodeStatus:
        """Figures for ``mesh status`` and metrics."""
        broker_host, services, router = self._broker_host, self._services, self._router
        follower, clients = self._follower, self._clients
        if broker_host is None or services is None or router is None or clients is None:
            return NodeStatus(revision=self._config.revision)
        found = broker_host.status()
        links = tuple([link.status(self._diallers[edge].trouble) for edge, link in self._links.items()])
        return CoreStatus(
            metrics=services.metrics,
            detail=found.detail
            or clients.buffers.strain()
            or ("" if follower is None else follower.detail)
            or "; ".join(f"{link.peer} {link.error}" for link in links if link.error)
            or clients.detail(),
            revision=self._config.revision if follower is None else follower.revision,
            begun=self._config.revision if follower is None else follower.begun,
            connections=found.broker.connected,
            sessions=found.broker.sessions,
            queued=found.broker.queued,
            broker_host=found,
            clients=clients.status(),
            buffers=clients.buffers.status(),
            arrivals=clients.arrivals.status(),
            links=links,
            unknown_vehicles=router.unknown,
            attempts=clients.attempts.status(),
            providers=clients.providers(),
            bans=self._bans.status(),
            services=services.status(),
        )


def _settings(config: NodeConfig) -> Settings:
    """The settings of a core's broker."""
    limits = config.topology.limits
    settings = config.broker_settings()
    settings.refused = plain(config.topology.access.backends.refuse)
    settings.in_flight = limits.backend_in_flight
    settings.receive_maximum = limits.backend_receive_maximum
    settings.max_session_expiry = min(settings.max_session_expiry, int(limits.backend_session_expiry))
    return settings


def _look_up(services: Services, config: NodeConfig) -> Callable[[str], Awaitable[Record | None]]:
    """How the owner of a vehicle is found. With an inbox, a command to a vehicle without an owner assigns one, whose
    inbox then holds the command."""
    return services.map.lookup if config.topology.inbox is None else services.claim
