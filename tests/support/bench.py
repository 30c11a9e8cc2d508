"""A broker with a journal in memory, and clients that record the packets they get. There are no sockets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from mesh.broker.broker import Broker
from mesh.broker.dispatcher import Forwarder
from mesh.broker.inbox import InboxRules
from mesh.broker.notices import Notices
from mesh.broker.peer import Peer
from mesh.broker.principal import BACKEND, VEHICLE, Permissions, Principal, everything
from mesh.broker.session import Connection, Key
from mesh.broker.settings import Settings
from mesh.broker.shell import Flushable
from mesh.broker.trace import Tracer
from mesh.wire.decode import CLIENT, Reader
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import Connack, Connect, Packet, Publish, SubAck, Subscribe, Subscription
from mesh.wire.properties import Properties
from tests.fakes.clock import FakeClock
from tests.fakes.store import MemoryStore
from tests.support.answers import answer_to

log = logging.getLogger(__name__)

PEER = Peer("192.0.2.7", 50123, "mqtt://127.0.0.1:1884")  # of all clients


class Bench:
    """A broker and its clients. ``auto`` commits after every packet. ``turns``: the most that follow each other at
    once."""

    turns = 1 << 30

    def __init__(
        self,
        settings: Settings | None = None,
        store: MemoryStore | None = None,
        clock: FakeClock | None = None,
        forwarder: Forwarder | None = None,
        inbox: InboxRules | None = None,
        auto: bool = True,
        tracer: Tracer | None = None,
        vehicle_of: Callable[[str], str | None] | None = None,
        permissions_of: Callable[[Key, tuple[str, ...], str], Permissions] | None = None,
    ) -> None:
        self.vehicle_of = vehicle_of
        self.tracer = tracer or Tracer()
        self.settings = settings or Settings()
        self.store = store or MemoryStore()
        self.clock = clock or FakeClock()
        self.auto = auto
        self.answered = False  # clients have acknowledged messages in this turn
        self.inbox = inbox
        notices = Notices(log.warning, self.clock)
        self.broker = Broker(
            self.settings, self.store, self.clock, self.tracer, forwarder, inbox, vehicle_of, notices, permissions_of
        )
        self.broker.recover(self.store.live())
        self.broker.durable(self.store.position)

    def turn(self, commit: bool | None = None) -> None:
        """Run a node's turns until no work is left."""
        commit = self.auto if commit is None else commit
        more, turns = True, 0
        while more and turns < self.turns:
            turns += 1
            more = self.broker.end_turn()
            if commit:
                self.broker.durable(self.store.commit())
            self._flush()
            if commit:  # the acknowledgements of the clients
                self.broker.durable(self.store.commit())
            more = more or bool(self.broker.courier.backlog_due or self.broker.dirty) or self.answered
            self.answered = False

    def _flush(self) -> None:
        sessions = [*self.broker.sessions.all(), *self.broker.sessions.ending]
        held = sum(len(session.outbound) for session in sessions)
        assert self.broker.persistence.depth.messages == held
        dirty = self.broker.dirty[:]
        self.broker.dirty.clear()
        for connection in dirty:
            connection.dirty = False
            connection.shell.flush()

    def restart(self, permissions_of: Callable[[Key, tuple[str, ...], str], Permissions] | None = None) -> Bench:
        """A new broker on the journal that a crash leaves."""
        store, auto, tracer = self.store.crash(), self.auto, self.tracer
        return Bench(self.settings, store, self.clock, None, self.inbox, auto, tracer, self.vehicle_of, permissions_of)

    def client(
        self, client_id: str = "c", name: str = "app", kind: int = BACKEND, auto_ack: bool = True, **fields: Any
    ) -> Client:
        client = Client(self, client_id, name, kind)
        client.auto_ack = auto_ack
        client.connect(**fields)
        return client


class Client(Flushable):
    """One client; ``packets`` holds the packets that it received."""

    def __init__(self, bench: Bench, client_id: str, name: str, kind: int) -> None:
        self.bench = bench
        self.client_id = client_id
        vehicle = name if kind == VEHICLE else ""
        prefix = f"vehicles/{name}/" if kind == VEHICLE else ""
        self.principal = Principal(name, kind, Permissions(prefix) if prefix else everything(), vehicle)
        self.packets: list[Packet] = []
        self.closed = False
        self.peer = PEER
        self.protocol = 5
        self.auto_ack = True
        self.connection: Connection
        self.reader: Reader
        self.last_id = 0

    def connect(self, protocol: int = 5, clean: bool = True, expiry: int | None = None, **fields: Any) -> None:
        properties = fields.pop("properties", None)
        if expiry is not None:
            properties = properties or Properties()
            properties.session_expiry = expiry
        packet = Connect(protocol, self.client_id, clean, 60, None, None, fields.pop("will", None), properties)
        self.protocol = protocol
        self.reader = Reader(PacketLimits(), CLIENT, protocol)
        self.closed = False
        self.connection = self.bench.broker.open(packet, self.principal, self.peer, self)
        self.bench.turn()

    def attach(self, unacked: list[int], protocol: int = 5) -> None:
        packet = Connect(protocol, self.client_id, True, 60)
        self.reader = Reader(PacketLimits(), CLIENT, protocol)
        self.protocol = protocol
        self.connection = self.bench.broker.attach(packet, self.principal, self.peer, self, unacked)
        self.bench.turn()

    def live(self) -> None:
        self.bench.broker.live(self.connection)
        self.bench.turn()

    def flush(self) -> None:
        data = b"".join(self.connection.out)
        self.connection.out.clear()
        self.connection.traced.clear()
        packets = self.reader.feed(data)
        assert self.reader.error is None, self.reader.error
        self.packets += packets
        if self.connection.closing:
            self.closed = True
        elif self.auto_ack:
            for packet in packets:
                answer = answer_to(packet)
                if answer is not None:
                    self.bench.answered = True
                    self.bench.broker.receive(self.connection, answer)

    def send(self, packet: Packet) -> None:
        self.bench.broker.receive(self.connection, packet)
        self.bench.turn()

    def publish(self, topic: str, payload: bytes = b"x", qos: int = 1, **fields: Any) -> int:
        self.last_id += 1 if qos else 0
        retain = fields.pop("retain", False)
        packet_id = fields.pop("packet_id", self.last_id if qos else 0)
        dup = fields.pop("dup", False)
        self.send(Publish(topic, payload, qos, retain, dup, packet_id, fields.pop("properties", None)))
        return packet_id

    def lose(self) -> None:
        self.bench.broker.lost(self.connection)
        self.bench.turn()

    def take(self, *types: type) -> list[Any]:
        """Remove and return the packets of these types; keep the others."""
        found = [packet for packet in self.packets if isinstance(packet, types)]
        self.packets = [packet for packet in self.packets if not isinstance(packet, types)]
        return found

    def messages(self) -> list[bytes]:
        return [packet.payload for packet in self.take(Publish)]

    def connack(self) -> Connack:
        return self.take(Connack)[-1]


def vehicle_of(topic: str) -> str | None:
    """The vehicle to which a topic below ``vehicles/`` belongs."""
    parts = topic.split("/")
    return parts[1] if parts[0] == "vehicles" and len(parts) > 1 else None


def inbox_rules() -> InboxRules:
    """An inbox takes the commands for its vehicle."""
    return InboxRules(vehicle_of, lambda vehicle: [Subscription(f"vehicles/{vehicle}/cmd/#", 1)], 1000)


def subscribe(client: Client, *filters: str, qos: int = 1, identifier: int = 0, **options: object) -> list[int]:
    """Subscribe; return the reason codes, none if the SUBACK has not come yet."""
    properties = None
    if identifier:
        properties = Properties()
        properties.subscription_ids = [identifier]
    subscriptions = [Subscription(filter, qos, **options) for filter in filters]  # type: ignore[arg-type]
    client.send(Subscribe(7, subscriptions, properties))
    acks = client.take(SubAck)
    return acks[-1].reasons if acks else []
