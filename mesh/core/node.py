"""The core: the one endpoint of back-end applications.

It composes the engine, the router and a tier link for every edge. What always holds: every edge that the topology or
the membership names has a link, so that what is meant for it waits in its spool while it is away.
"""

from __future__ import annotations

import asyncio
from typing import Final, final

from mesh.broker.gate import Gate
from mesh.core.owners import MapOwners
from mesh.core.recovery import CoreItems
from mesh.core.router import Router
from mesh.core.socket import TierSocket
from mesh.core.spool import Spool
from mesh.core.status import CoreStatus
from mesh.core.tier import TierLink
from mesh.core.upstream import Upstream
from mesh.figures.node import NodeStatus
from mesh.node.engine import Engine, open_engine
from mesh.node.place import TIER, Place
from mesh.node.services import Services
from mesh.registry.members import Member
from mesh.transport.admission import Admission
from mesh.transport.dialler import Address, Dialler
from mesh.transport.endpoint import Endpoint
from mesh.transport.status import CLIENT, together
from mesh.transport.stream import Home
from mesh.transport.waiting import until
from mesh.wire.topics import is_shared

_FIRST_LINKS: Final = 5.0  # seconds that a start waits for the edges, so that "ready" means that messages arrive


@final
class Core:
    """One core. ``start`` raises ``JournalError``, ``OSError`` or ``RegistryError``, each with one clear sentence."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._services: Services | None = None
        self._engine: Engine | None = None
        self._router: Router | None = None
        self._upstream: Upstream | None = None
        self._links: dict[str, TierLink] = {}
        self._diallers: dict[str, Dialler] = {}
        self._addresses: dict[str, Address] = {}
        self._kept = CoreItems(())
        self._home: Home | None = None
        self._endpoints: list[Endpoint] = []

    async def start(self) -> None:
        """Recover, connect to the edges, then listen to back ends."""
        place = self._place
        services = self._services = Services(place)
        # With an inbox the first command for a vehicle that nobody owns has a place to wait, once it has an owner.
        find = services.map.lookup if place.topology.inbox is None else services.claim
        owners = MapOwners(services.map.recent, services.is_vehicle, find)
        self._router = Router(
            place.vehicle_of(), place.topology.fleet, owners, self._links, self._link_to, self._wake
        )
        settings = place.engine_settings()
        settings.refused = place.topology.access.backends.refuse
        settings.in_flight = place.topology.limits.backend_in_flight
        settings.receive_maximum = place.topology.limits.backend_receive_maximum
        engine, other = await open_engine(place, services, settings, self._router, None)
        self._engine = engine
        self._router.broker = engine.broker
        self._home = Home(asyncio.get_running_loop(), engine.wheel)
        self._kept = CoreItems(other)
        self._upstream = self._follow_interest(engine)
        engine.broker.system.transferred = self._transferred
        engine.turn.add(self._flush)
        engine.pressing = self._pressing
        engine.on_durable.append(self._durable)
        engine.on_tick.append(self._tick)
        engine.on_disk = self._disk
        engine.start()
        await services.start(self._member)
        for edge in [*self._kept.links, *(edge.name for edge in place.topology.edges())]:
            self._link_to(edge)
        await self._wait_for_links()
        await self._listen(engine)
        await services.announce({})
        await services.show(self.status)

    def _follow_interest(self, engine: Engine) -> Upstream:
        upstream = Upstream(engine.journal, self._interest, lambda filter: any(
            link.has(filter) for link in self._links.values()
        ))  # fmt: skip
        upstream.restore(self._kept.identifiers)
        for filter in engine.broker.subscriptions.filters():
            upstream.wanted(filter)
        engine.broker.subscriptions.listener = upstream
        return upstream

    async def _wait_for_links(self) -> None:
        await until(lambda: all(link.up for link in self._links.values()), _FIRST_LINKS)

    async def _listen(self, engine: Engine) -> None:
        place = self._place
        limits = place.topology.limits
        access, rule = place.topology.access, place.topology.backends
        backends = rule.compile(access.grant(access.backends))
        admission = Admission(place.client_limits(), limits.connections, place.spec.redirect, rule.methods())
        for listener in place.spec.listen:
            endpoint = Endpoint(
                place.name, engine.broker, engine.turn, engine.wheel, backends.principal_of,
                listen=listener.listen(), admission=admission,
                connect_timeout=limits.connect_timeout, proven=backends.proven,
            )  # fmt: skip
            await endpoint.start()
            self._endpoints.append(endpoint)

    def _transferred(self) -> tuple[int, int]:
        """Bytes from and to back ends."""
        homes = [endpoint.home for endpoint in self._endpoints]
        return sum(home.bytes_in for home in homes), sum(home.bytes_out for home in homes)

    # Links

    def _link_to(self, edge: str) -> TierLink:
        """The link to an edge, which need not be there at present."""
        link = self._links.get(edge)
        if link is None:
            assert self._engine is not None
            link = self._links[edge] = self._make_link(edge, self._engine)
            dialler = self._diallers[edge] = self._make_dialler(link, self._engine)
            dialler.start()
        return link

    def _make_link(self, edge: str, engine: Engine) -> TierLink:
        assert self._upstream is not None
        place = self._place
        limits = place.topology.limits
        spool = Spool(engine.journal, edge, limits.spool_messages, limits.spool_bytes)
        link = TierLink(
            edge, place.name, place.tier_password(edge), engine.broker, self._upstream, spool,
            place.member_limits(), limits.owner_timeout, engine.turn,
        )  # fmt: skip
        kept = self._kept.links.pop(edge, None)
        if kept is not None:
            link.restore(kept.spooled, kept.filters, kept.incoming)
        return link

    def _make_dialler(self, link: TierLink, engine: Engine) -> Dialler:
        place, edge, home = self._place, link.edge, self._home
        assert home is not None

        def make() -> TierSocket:
            return TierSocket(home, link, engine.turn, dialler.welcomed)

        dialler = Dialler(
            place.name, f"edge {edge}", lambda: self._addresses.get(edge), place.near(edge, TIER), make
        )  # fmt: skip
        return dialler

    def _member(self, old: Member | None, new: Member | None) -> None:
        """Membership changed. An edge that is gone keeps its address: its lease may be over while it is restarting."""
        if new is None or new.role != "edge" or TIER not in new.ports:
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
        if not wanted and not is_shared(filter) and self._engine is not None:
            self._engine.broker.dispatcher.forget_retained(filter)
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
        if self._engine is not None:
            self._engine.turn.wake()

    def _pressing(self) -> bool:
        return any(link.waits() for link in self._links.values())

    def _flush(self) -> None:
        for link in self._links.values():
            link.flush()

    def _durable(self, position: int) -> None:
        for link in self._links.values():
            link.advance()

    def _tick(self) -> None:
        for link in self._links.values():
            link.tick()

    def _disk(self, writable: bool) -> None:
        for endpoint in self._endpoints:
            if writable:
                endpoint.resume()
            else:
                endpoint.pause()

    async def stop(self, grace: float) -> None:
        """Tell the back ends, close the links and the journal."""
        for endpoint in self._endpoints:
            await endpoint.stop(grace / 2)
        for dialler in self._diallers.values():
            await dialler.stop()
        for link in self._links.values():
            link.abort()
        if self._router is not None:
            await self._router.stop()
        if self._engine is not None:
            await self._engine.stop()
        if self._services is not None:
            await self._services.stop()

    def status(self) -> NodeStatus:
        """Figures for ``mesh status`` and metrics."""
        engine, services, router = self._engine, self._services, self._router
        if engine is None or services is None or router is None:
            return NodeStatus(host=self._place.topology.bind)
        found = engine.status()
        links = tuple([link.status(self._diallers[edge].trouble) for edge, link in self._links.items()])
        return CoreStatus(
            host=self._place.topology.bind,
            metrics=services.metrics,
            detail=found.detail or "; ".join(f"{link.peer} {link.error}" for link in links if link.error),
            connections=found.broker.connected,
            sessions=found.broker.sessions,
            queued=found.broker.queued,
            engine=found,
            clients=together(CLIENT, [endpoint.status(CLIENT) for endpoint in self._endpoints]),
            links=links,
            unknown_vehicles=router.unknown,
            services=services.status(),
        )
