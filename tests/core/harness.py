"""A core's broker with its tier links, and edges' brokers: pipes of bytes in place of the sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mesh.broker.gate import Gate
from mesh.broker.peer import NOWHERE, Peer
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Permissions
from mesh.broker.session import Connection, Key
from mesh.broker.settings import Settings
from mesh.broker.shell import Flushable
from mesh.broker.trace import Tracer
from mesh.core.owners import Owners, OwnerUnknown
from mesh.core.recovery import CoreItems
from mesh.core.router import Router
from mesh.core.spool import Spool
from mesh.core.tier import TierLink
from mesh.core.upstream import Upstream
from mesh.core.withdrawals import Withdrawals
from mesh.transport.trail import Trail
from mesh.transport.turn import Turn
from mesh.wire.decode import SERVER, Reader
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import Ack, Connect, SubAck, Subscribe, Subscription
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.support.bench import Bench, Client

PATIENCE = 10.0
TURN = Turn(asyncio.new_event_loop())  # its steps are not under test here
EDGE = Peer("192.0.2.1", 7001)


class Pipe(Flushable):
    """The socket between one tier link and one edge's broker; both ends in one."""

    peer = EDGE

    def __init__(self, link: TierLink, edge: Bench) -> None:
        self.link = link
        self.edge = edge
        self.reader = Reader(PacketLimits(), SERVER)
        self.connection: Connection | None = None
        self.open = True
        self.mute = False  # the edge has stopped answering
        self.deaf = False  # the core does not get the bytes that the edge sends
        self.welcomed = False
        link.opened(self)

    def write(self, data: bytes) -> None:
        if not self.open or self.mute:
            return
        for packet in self.reader.feed(data):
            if isinstance(packet, Connect):
                principal = Client(self.edge, "", packet.username or "", TIER).principal
                self.connection = self.edge.broker.open(packet, principal, NOWHERE, self)
            elif self.connection is not None:
                self.edge.broker.receive(self.connection, packet)

    def flush(self) -> None:
        assert self.connection is not None
        data = b"".join(self.connection.out)
        self.connection.out.clear()
        self.connection.traced.clear()
        if self.open and not self.mute and not self.deaf:
            self.link.received(data)

    def established(self) -> None:
        self.welcomed = True

    def finish(self) -> None:
        self.cut()

    def abort(self) -> None:
        self.cut()

    def cut(self) -> None:
        if self.open:
            self.open = False
            self.link.lost()
            if self.connection is not None and not self.edge.gone:
                self.edge.broker.lost(self.connection)


class Edge(Bench):
    """An edge's broker."""

    def __init__(
        self, store: MemoryStore | None = None, clock: FakeClock | None = None, settings: Settings | None = None
    ) -> None:
        settings = settings or Settings()
        settings.keep_all = True
        super().__init__(settings, store, clock)
        self.gone = False


class KnownOwners(Owners):
    def __init__(self, owners: dict[str, str]) -> None:
        self.owners = owners

    def cached(self, vehicle: str) -> str | None:
        return self.owners.get(vehicle)

    async def find(self, vehicle: str) -> str | None:
        raise OwnerUnknown("no etcd in this test")


class Mesh:
    """A core and its edges. ``run`` lets every byte arrive and every journal commit."""

    def __init__(
        self,
        edges: int = 2,
        store: MemoryStore | None = None,
        clock: FakeClock | None = None,
        tracer: Tracer | None = None,
        fleet: tuple[str, ...] = ("fleet/#",),
        core: str = "core",
        trail: Trail | None = None,
        permissions_of: Callable[[Key, tuple[str, ...], str], Permissions] | None = None,
    ) -> None:
        self.trail = trail
        self.permissions_of = permissions_of
        self.fleet = fleet
        self.core_name = core
        self.clock = clock or FakeClock()
        self.names = [f"edge-{number}" for number in range(1, edges + 1)]
        self.owners = {f"V{number}": name for number, name in enumerate(self.names, 1)}
        owners = KnownOwners(self.owners)
        self.links: dict[str, TierLink] = {}
        links = self.links
        self.router = Router(
            vehicle_of, fleet, owners, links, links.__getitem__, lambda: None
        )
        self.core = Bench(
            Settings(), store, self.clock, self.router, tracer=tracer, vehicle_of=vehicle_of,
            permissions_of=permissions_of,
        )  # fmt: skip
        self.router.broker = self.core.broker
        self.withdrawals = self.router.withdrawals = Withdrawals(
            self.core.broker, owners, links, links.__getitem__, self.router.looks_up, lambda: None
        )
        kept = CoreItems(self.core.store.live())
        self.upstream = Upstream(self.core.store, self.interest, self.held)
        self.upstream.restore(kept.identifiers)
        for filter in self.core.broker.subscriptions.filters():
            self.upstream.wanted(filter)
        self.core.broker.subscriptions.listener = self.upstream
        for name in self.names:
            self.links[name] = self.make_link(name, kept)
        self.withdrawals.restore(kept.withdrawn, vehicle_of)
        self.withdrawals.begin()
        self.edges = {name: Edge(None, self.clock) for name in self.names}
        self.pipes: dict[str, Pipe] = {}

    def make_link(self, name: str, kept: CoreItems) -> TierLink:
        spool = Spool(self.core.store, name, 1000, 1 << 20)
        link = TierLink(
            name, self.core_name, bytes, self.core.broker, self.upstream, spool, PacketLimits(), 5.0, PATIENCE, TURN,
            self.fleet, self.trail,
        )  # fmt: skip
        items = kept.links.get(name)
        if items is not None:
            link.restore(items.spooled, items.filters, items.incoming, items.given)
        return link

    def held(self, filter: str) -> bool:
        return any(link.has(filter) for link in self.links.values())

    def interest(self, filter: str, wanted: bool) -> Any:
        for link in self.links.values():
            if not wanted:
                link.unwant(filter)
            else:
                link.want(filter, Gate(0))
        return None

    def connect(self, *names: str) -> None:
        for name in names or self.names:
            self.pipes[name] = self.pipe(self.links[name], self.edges[name])
        self.run()

    def add_edge(self) -> str:
        """An edge that the core did not know."""
        name = f"edge-{len(self.names) + 1}"
        self.names.append(name)
        self.links[name] = self.make_link(name, CoreItems(()))
        self.edges[name] = Edge(None, self.clock)
        return name

    def pipe(self, link: TierLink, edge: Edge) -> Pipe:
        return Pipe(link, edge)


    def kill(self, name: str) -> None:
        """The edge's process dies, and loses all that is not on its disk."""
        self.edges[name].gone = True
        self.pipes[name].cut()
        self.edges[name] = Edge(self.edges[name].store.crash(), self.clock, self.edges[name].settings)
        self.run()

    def run(self) -> None:
        for _ in range(12):
            self.core.turn()
            for link in self.links.values():
                link.advance()
                link.flush()
            for edge in self.edges.values():
                edge.turn()

    def restart_core(self) -> Mesh:
        fresh = type(self)(
            len(self.names), self.core.store.crash(), self.clock, None, self.fleet, self.core_name,
            permissions_of=self.permissions_of,
        )  # fmt: skip
        for name, pipe in self.pipes.items():
            if pipe.open and pipe.connection is not None:
                self.edges[name].broker.lost(pipe.connection)
            pipe.open = False
        fresh.owners.update(self.owners)
        fresh.edges = self.edges
        return fresh

    def vehicle(self, number: int, *filters: str, **fields: Any) -> Client:
        client = self.edges[self.owners[f"V{number}"]].client("v", f"V{number}", VEHICLE, **fields)
        for filter in filters:
            client.send(Subscribe(1, [Subscription(f"vehicles/V{number}/{filter}", 2)]))
        self.run()
        return client

    def backend(self, name: str = "app", *filters: str, **fields: Any) -> Client:
        client = self.core.client(name, "app", BACKEND, **fields)
        for filter in filters:
            client.send(Subscribe(1, [Subscription(filter, 2)]))
        self.run()
        client.take(SubAck)
        return client


def vehicle_of(topic: str) -> str | None:
    parts = topic.split("/")
    return parts[1] if parts[0] == "vehicles" and len(parts) > 1 else None


def filters(edge: Bench) -> list[str]:
    """The filters that an edge has, without that of its dead letters, which every core has."""
    return [filter for filter in edge.broker.subscriptions.filters() if not filter.endswith("$dead-letters/#")]


def acks(client: Client) -> list[tuple[int, int]]:
    return [(ack.packet_id, ack.reason) for ack in client.take(Ack) if ack.type in (4, 5)]


def retained(edge: Edge) -> dict[str, bytes]:
    """The fleet's retained messages of an edge."""
    found = {}
    for topic, _ in edge.broker.retained.items("fleet/#"):
        message = edge.broker.retained.get(topic)
        assert message is not None
        found[topic] = message.payload
    return found


def say(backend: Client, mesh: Mesh, topic: str, payload: bytes, qos: int = 1) -> None:
    mesh.clock.now += 1
    backend.publish(topic, payload, qos, retain=True)
    mesh.run()
