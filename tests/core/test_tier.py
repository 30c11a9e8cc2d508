"""The tier link between a core's engine and edges' engines, with a pipe of bytes in place of the socket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mesh.broker.gate import Gate
from mesh.broker.peer import NOWHERE
from mesh.broker.session import Connection
from mesh.broker.settings import Settings
from mesh.broker.shell import Flushable
from mesh.broker.trace import RECEIVE, RELAY, Tracer
from mesh.core.intake import edge_of as edge_of_incoming
from mesh.core.router import Owners, OwnerUnknown, Router
from mesh.core.spool import SPOOL_RELEASED, SPOOLED, TIER_FILTER, TIER_INCOMING, Spool, edge_of
from mesh.core.tier import TierLink
from mesh.core.upstream import Upstream
from mesh.transport.turn import Turn
from mesh.wire.decode import SERVER, Reader
from mesh.wire.limits import Limits
from mesh.wire.packets import Ack, Connect, Publish, SubAck, Subscribe, Subscription
from tests.broker.harness import BACKEND, TIER, VEHICLE, Bench, Client, Clock, MemoryStore
from tests.conformance.shows import shows
from tests.fakes.tracer import KeepingTracer

TURN = Turn(asyncio.new_event_loop())  # whoever marks and wakes is not under test here


class Pipe(Flushable):
    """The socket between one tier link and one edge's engine; both ends in one."""

    def __init__(self, link: TierLink, edge: Bench) -> None:
        self.link = link
        self.edge = edge
        self.reader = Reader(Limits(), SERVER)
        self.connection: Connection | None = None
        self.open = True
        self.mute = False  # the edge has stopped answering
        link.connected(self)

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
        if self.open and not self.mute:
            self.link.received(data, TURN)

    def finish(self) -> None:
        self.cut()

    def cut(self) -> None:
        if self.open:
            self.open = False
            self.link.lost()
            if self.connection is not None and not self.edge.gone:
                self.edge.broker.lost(self.connection)


class Edge(Bench):
    """An edge's engine."""

    def __init__(self, store: MemoryStore | None = None, clock: Clock | None = None) -> None:
        settings = Settings()
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
        clock: Clock | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.names = [f"edge-{number}" for number in range(1, edges + 1)]
        owners = KnownOwners({f"V{number}": name for number, name in enumerate(self.names, 1)})
        self.links: dict[str, TierLink] = {}
        links = self.links
        self.router = Router(
            vehicle_of, ("fleet/#",), owners, links, links.__getitem__, lambda: None
        )
        self.core = Bench(Settings(), store, self.clock, self.router, tracer=tracer)
        self.router.broker = self.core.broker
        self.upstream = Upstream(self.interest)
        for filter in self.core.broker.subscriptions.filters():
            self.upstream.wanted(filter)
        self.core.broker.subscriptions.listener = self.upstream
        for name in self.names:
            self.links[name] = self.make_link(name)
        self.edges = {name: Edge(None, self.clock) for name in self.names}
        self.pipes: dict[str, Pipe] = {}

    def make_link(self, name: str) -> TierLink:
        spool = Spool(self.core.store, name, 1000, 1 << 20)
        link = TierLink(name, "core", b"", self.core.broker, self.upstream, spool, Limits(), 5.0)
        items = [item for item in self.core.store.live() if item.kind >= SPOOLED]
        link.restore(
            [item for item in items if item.kind in (SPOOLED, SPOOL_RELEASED) and edge_of(item) == name],
            {
                item.meta.decode().partition("\0")[2]: item.id
                for item in items
                if item.kind == TIER_FILTER and item.meta.decode().startswith(name)
            },
            [item for item in items if item.kind == TIER_INCOMING and edge_of_incoming(item) == name],
        )
        return link

    def interest(self, filter: str, wanted: bool) -> Any:
        for link in self.links.values():
            if not wanted:
                link.unwant(filter)
            else:
                link.want(filter, self.upstream.filters()[filter], Gate(0))
        return None

    def connect(self, *names: str) -> None:
        for name in names or self.names:
            self.pipes[name] = Pipe(self.links[name], self.edges[name])
        self.run()

    def kill(self, name: str) -> None:
        """The edge's process dies, with all that its disk does not have."""
        self.edges[name].gone = True
        self.pipes[name].cut()
        self.edges[name] = Edge(self.edges[name].store.crash(), self.clock)
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
        fresh = Mesh(len(self.names), self.core.store.crash(), self.clock)
        for name, pipe in self.pipes.items():
            if pipe.open and pipe.connection is not None:
                self.edges[name].broker.lost(pipe.connection)
            pipe.open = False
        fresh.edges = self.edges
        return fresh

    def vehicle(self, number: int, *filters: str, **fields: Any) -> Client:
        client = self.edges[f"edge-{number}"].client("v", f"V{number}", VEHICLE, **fields)
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


def acks(client: Client) -> list[tuple[int, int]]:
    return [(ack.packet_id, ack.reason) for ack in client.take(Ack) if ack.type in (4, 5)]


@pytest.fixture
def mesh() -> Mesh:
    mesh = Mesh()
    mesh.connect()
    return mesh


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_command_reaches_the_one_edge_that_owns_the_vehicle(mesh: Mesh, qos: int) -> None:
    vehicle, other = mesh.vehicle(1, "cmd"), mesh.vehicle(2, "cmd")
    backend = mesh.backend()
    backend.publish("vehicles/V1/cmd", b"go", qos)
    mesh.run()
    assert vehicle.messages() == [b"go"]
    assert other.messages() == []
    assert [reason for _, reason in acks(backend)] == ([0] if qos else [])


def test_the_answer_of_the_edge_is_the_answer_of_the_core(mesh: Mesh) -> None:
    backend = mesh.backend()
    backend.publish("vehicles/V1/cmd")
    assert acks(backend) == []
    mesh.run()
    assert acks(backend) == [(1, 0x10)]


def test_a_fleet_wide_topic_goes_to_every_edge(mesh: Mesh) -> None:
    backend = mesh.backend()
    for number in (1, 2):
        watcher = mesh.edges[f"edge-{number}"].client("w", "watch", TIER)
        watcher.send(Subscribe(1, [Subscription("$share/x/fleet/#", 1)]))
    backend.publish("fleet/news")
    mesh.run()
    assert [link.sent for link in mesh.links.values()] == [1, 1]


@pytest.mark.parametrize(("topic", "edges"), [("fleet/news", 2), ("vehicles/V1/cmd", 1)])
def test_what_goes_to_several_edges_is_linked_to_the_message(topic: str, edges: int) -> None:
    tracer = KeepingTracer()
    mesh = Mesh(tracer=tracer)
    mesh.connect()
    mesh.backend().publish(topic)
    mesh.run()
    [received] = tracer.of(RECEIVE)
    relays = tracer.of(RELAY)
    assert [relay.parent for relay in relays] == [received.context] * edges
    assert [relay.link for relay in relays] == [received.context if edges > 1 else None] * edges


def test_what_is_between_back_ends_reaches_no_edge(mesh: Mesh) -> None:
    reader = mesh.core.client("r", "reader")
    reader.send(Subscribe(1, [Subscription("orders/#", 1)]))
    mesh.run()
    sender = mesh.core.client("s", "sender")
    sender.publish("orders/1", b"new")
    mesh.run()
    assert reader.messages() == [b"new"]
    assert not any(link.sent for link in mesh.links.values())


def test_reports_come_back_once_and_shared_groups_get_each_once(mesh: Mesh) -> None:
    everything = mesh.backend("all", "vehicles/+/status", "vehicles/#")
    group = [mesh.backend(f"g{number}", "$share/g/vehicles/+/status") for number in range(3)]
    vehicles = [mesh.vehicle(1), mesh.vehicle(2)]
    expected = []
    for number in range(6):
        for vehicle in vehicles:
            payload = f"{vehicle.principal.name} {number}".encode()
            vehicle.publish(f"vehicles/{vehicle.principal.name}/status", payload)
            expected.append(payload)
            mesh.run()
    assert sorted(everything.messages()) == sorted(expected)
    shares = [member.messages() for member in group]
    assert sorted(payload for share in shares for payload in share) == sorted(expected)
    assert all(shares)


def test_an_edge_that_is_away_gets_its_messages_in_order_when_it_is_back(mesh: Mesh) -> None:
    vehicle = mesh.vehicle(1, "cmd", expiry=100)
    backend = mesh.backend()
    vehicle.lose()
    mesh.kill("edge-1")
    for number in range(50):
        backend.publish("vehicles/V1/cmd", b"%d" % number)
    mesh.run()
    assert [reason for _, reason in acks(backend)] == [0] * 50
    assert mesh.links["edge-1"].spool.messages == 50
    mesh.connect("edge-1")
    backend.publish("vehicles/V1/cmd", b"50")
    mesh.run()
    assert mesh.links["edge-1"].spool.messages == 0
    assert mesh.vehicle(1, clean=False, expiry=100).messages() == [b"%d" % number for number in range(51)]
    assert [item for item in mesh.core.store.items.values() if item.kind == SPOOLED] == []


@shows(v3="7.0.0-1")
def test_what_an_edge_had_not_answered_when_it_died_is_spooled_and_sent_again(mesh: Mesh) -> None:
    vehicle = mesh.vehicle(1, "cmd", expiry=100)
    vehicle.lose()
    backend = mesh.backend()
    mesh.pipes["edge-1"].mute = True
    for number in range(5):
        backend.publish("vehicles/V1/cmd", b"%d" % number)
    mesh.run()
    assert acks(backend) == []
    mesh.kill("edge-1")
    assert [reason for _, reason in acks(backend)] == [0] * 5
    mesh.connect("edge-1")
    assert mesh.vehicle(1, clean=False, expiry=100).messages() == [b"%d" % number for number in range(5)]


def test_an_edge_that_does_not_answer_in_time_counts_as_away(mesh: Mesh) -> None:
    backend = mesh.backend()
    mesh.pipes["edge-1"].mute = True
    backend.publish("vehicles/V1/cmd")
    mesh.run()
    assert acks(backend) == []
    mesh.clock.now += 6
    mesh.links["edge-1"].tick()
    mesh.run()
    assert acks(backend) == [(1, 0)]
    backend.publish("vehicles/V1/cmd")
    mesh.run()
    assert acks(backend) == [(2, 0)]  # spooled at once


def test_a_silent_edge_is_given_up(mesh: Mesh) -> None:
    mesh.pipes["edge-1"].mute = True
    mesh.clock.now += 16
    mesh.links["edge-1"].tick()
    assert not mesh.links["edge-1"].up


def test_the_spool_survives_a_crash_of_the_core(mesh: Mesh) -> None:
    vehicle = mesh.vehicle(1, "cmd", expiry=100)
    vehicle.lose()
    backend = mesh.backend()
    mesh.kill("edge-1")
    for number in range(10):
        backend.publish("vehicles/V1/cmd", b"%d" % number, 1 + number % 2)
    mesh.run()
    mesh = mesh.restart_core()
    mesh.connect()
    assert mesh.vehicle(1, clean=False, expiry=100).messages() == [b"%d" % number for number in range(10)]


@shows(v3="7.0.0-1")
@pytest.mark.parametrize("killed", ["edge", "core"])
@pytest.mark.parametrize("turns", range(1, 9))
def test_qos_2_downstream_is_exactly_once_whenever_somebody_dies(killed: str, turns: int) -> None:
    mesh = Mesh()
    mesh.connect()
    vehicle = mesh.vehicle(1, "cmd", expiry=100)
    vehicle.lose()
    backend = mesh.backend(expiry=100)
    mesh.core.broker.receive(backend.connection, Publish("vehicles/V1/cmd", b"once", 2, packet_id=1))
    for step in range(turns):  # the two nodes come one step further at a time
        if step % 2 == 0:
            mesh.core.turn()
            mesh.links["edge-1"].advance()
            mesh.links["edge-1"].flush()
        else:
            mesh.edges["edge-1"].turn()
    if killed == "edge":
        mesh.kill("edge-1")
        mesh.connect("edge-1")
    else:
        answered = any(ack.type == 5 for ack in backend.take(Ack))
        mesh = mesh.restart_core()
        mesh.connect()
        backend = mesh.core.client("app", "app", BACKEND, clean=False, expiry=100)
        if not answered:
            backend.publish("vehicles/V1/cmd", b"once", 2, packet_id=1, dup=True)
    mesh.run()
    assert mesh.vehicle(1, clean=False, expiry=100).messages() == [b"once"]


def test_a_full_queue_of_one_back_end_takes_nothing_from_the_others() -> None:
    mesh = Mesh()
    mesh.core.settings.max_queue_messages = 2
    mesh.connect()
    mesh.backend("away", "vehicles/+/status", expiry=100).lose()
    vehicle = mesh.vehicle(1)
    for number in range(4):
        vehicle.publish("vehicles/V1/status", b"%d" % number, 2)
        mesh.run()
    assert [ack.reason for ack in vehicle.take(Ack) if ack.type == 5] == [0] * 4
    reader = mesh.backend("reader", "vehicles/+/status")
    mesh.kill("edge-1")  # its identifiers begin anew
    mesh.connect("edge-1")
    vehicle = mesh.vehicle(1)
    for number in range(4, 8):
        vehicle.publish("vehicles/V1/status", b"%d" % number, 2)
        mesh.run()
    assert reader.messages() == [b"4", b"5", b"6", b"7"]
    assert mesh.core.broker.counters.rejected == 6


def test_the_edges_forget_what_nobody_wants_any_more(mesh: Mesh) -> None:
    backend = mesh.backend("app", "vehicles/+/status", "$share/g/vehicles/#")
    assert [len(edge.broker.subscriptions) for edge in mesh.edges.values()] == [2, 2]
    backend.lose()
    mesh.run()
    assert [len(edge.broker.subscriptions) for edge in mesh.edges.values()] == [0, 0]


def test_a_core_that_comes_back_takes_back_what_its_durable_back_ends_want(mesh: Mesh) -> None:
    mesh.backend("keep", "vehicles/+/status", expiry=100)
    mesh.backend("leave", "vehicles/+/other")
    mesh = mesh.restart_core()
    vehicle = mesh.vehicle(1)
    vehicle.publish("vehicles/V1/status", b"while away")
    mesh.connect()
    assert [edge.broker.subscriptions.filters() for edge in mesh.edges.values()] == [["vehicles/+/status"]] * 2
    assert mesh.core.client("keep", "app", BACKEND, clean=False, expiry=100).messages() == [b"while away"]


def test_retained_reports_are_there_for_later_subscribers(mesh: Mesh) -> None:
    mesh.vehicle(1).publish("vehicles/V1/status", b"parked", retain=True)
    first = mesh.backend("one", "vehicles/+/status")
    assert first.messages() == [b"parked"]
    assert mesh.backend("two", "vehicles/#").messages() == [b"parked"]


def test_a_vehicle_whose_owner_cannot_be_found_out_is_answered_with_a_code(mesh: Mesh) -> None:
    async def scenario() -> None:
        backend = mesh.backend()
        backend.publish("vehicles/V9/cmd")
        backend.publish("vehicles/V1/cmd")
        mesh.run()
        assert acks(backend) == []
        for _ in range(5):
            await asyncio.sleep(0)
        mesh.run()
        assert acks(backend) == [(1, 0x83), (2, 0x10)]

    asyncio.run(scenario())
