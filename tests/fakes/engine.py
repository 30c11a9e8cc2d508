"""A fake broker for tests of endpoints and links: it records its calls and sends only the answers that MQTT requires.

It acknowledges a PUBLISH when its journal is durable, as the real broker does. The test makes the deliveries.
"""

from __future__ import annotations

from collections import deque

from mesh.broker.api import BrokerApi
from mesh.broker.peer import Peer
from mesh.broker.principal import VEHICLE, Permissions, Principal
from mesh.broker.session import Connection
from mesh.broker.shell import Flushable
from mesh.session.store import Store
from mesh.wire.encode import encode, encode_ack
from mesh.wire.packets import (
    MQTT5,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    SubAck,
    Subscribe,
)

POISON = b"poison"  # a payload at which this broker fails


class FakeJournal(Store):
    """A journal position that the test makes durable; with ``automatic`` it is durable at once."""

    def __init__(self) -> None:
        super().__init__()
        self.durable = 0
        self.automatic = True

    def advance(self) -> int:
        self.position += 1
        return self.position


class FakeBroker(BrokerApi):
    """``received`` holds (client id, packet) of all connections; ``lost_clients`` the clients that ended without
    DISCONNECT."""

    def __init__(self, journal: FakeJournal) -> None:
        self.journal = journal
        self.dirty: list[Connection] = []
        self.received: list[tuple[str, Packet]] = []
        self.aside: list[Packet] = []
        self.opened: list[str] = []
        self.connects: list[Connect] = []
        self.attached: list[tuple[str, list[int]]] = []
        self.alive: list[str] = []
        self.lost_clients: list[str] = []
        self.failed: list[tuple[str, int]] = []
        self.paused: set[str] = set()
        self.current: dict[str, Connection] = {}
        self.names: dict[Connection, str] = {}
        self.sessions: set[str] = set()
        self.accepting = True
        self.refuse_with = 0
        self.dead = False
        self.faulty: set[str] = set()  # the clients whose CONNECT and ATTACH, and end, raise
        self._held: deque[tuple[int, Connection, bytes]] = deque()

    # BrokerApi

    def open(self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable) -> Connection:
        name = connect.client_id
        if not name:
            name = connect.client_id = f"assigned-{len(self.opened)}"
        self._fail_for(name)
        connection = self._connection(connect, principal, peer, shell, name)
        connection.assigned = name.startswith("assigned-")
        self.opened.append(name)
        self.connects.append(connect)
        if self.refuse_with:
            self.write(connection, encode(Connack(False, self.refuse_with), connect.protocol))
            self._close(connection)
            return connection
        old = self.current.get(name)
        if old is not None:
            self._close(old)
        self.current[name] = connection
        self.sessions.add(name)
        if self.accepting:
            self.accept(connection)
        return connection

    def attach(
        self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable, unacked: list[int]
    ) -> Connection:
        name = connect.client_id
        self._fail_for(name)
        connection = self._connection(connect, principal, peer, shell, name)
        self.attached.append((name, unacked))
        if name not in self.sessions:
            self._close(connection)
            return connection
        connection.accepted = True
        connection.live = False
        self.current[name] = connection
        return connection

    def entitle(self, connection: Connection, roles: tuple[str, ...]) -> None:
        connection.principal.permissions.entitle(roles)

    def live(self, connection: Connection) -> None:
        connection.live = True
        self.alive.append(self.names[connection])

    def receive(self, connection: Connection, packet: Packet) -> None:
        if self.dead:
            return
        self.received.append((self.names[connection], packet))
        if isinstance(packet, Publish) and packet.payload == POISON:
            raise ValueError("a fault of the broker")
        if isinstance(packet, Publish) and packet.qos:
            kind = PUBACK if packet.qos == 1 else PUBREC
            self.write_durable(connection, encode_ack(kind, packet.packet_id, 0, connection.protocol))
        elif isinstance(packet, Ack) and packet.type == PUBREL:
            self.write_durable(connection, encode_ack(PUBCOMP, packet.packet_id, 0, connection.protocol))
        elif isinstance(packet, Ack) and packet.type == PUBREC:
            self.write_durable(connection, encode_ack(PUBREL, packet.packet_id, 0, connection.protocol))
        elif isinstance(packet, Subscribe):
            codes = [subscription.qos for subscription in packet.subscriptions]
            self.write(connection, encode(SubAck(SUBACK, packet.packet_id, codes), connection.protocol))
        elif isinstance(packet, Ping) and packet.type == PINGREQ:
            self.write(connection, encode(Ping(PINGRESP), connection.protocol))
        elif isinstance(packet, Disconnect):
            self._fail_for(self.names[connection])
            self.current.pop(self.names[connection], None)
            self._close(connection)

    def set_aside(self, connection: Connection, packet: Packet) -> None:
        self.aside.append(packet)

    def fail(self, connection: Connection, reason: int, why: str = "") -> None:
        self.failed.append((self.names[connection], reason))
        if connection.protocol == MQTT5:
            self.write(connection, encode(Disconnect(reason), MQTT5))
        self._close(connection)

    def lost(self, connection: Connection) -> None:
        self.lost_clients.append(self.names[connection])
        connection.closing = True
        connection.out.clear()

    def pause(self, connection: Connection) -> None:
        connection.writable = False
        self.paused.add(self.names[connection])

    def resume(self, connection: Connection) -> None:
        connection.writable = True
        self.paused.discard(self.names[connection])

    # For tests

    def accept(self, connection: Connection) -> None:
        self.write(connection, encode(Connack(False, 0), connection.protocol))
        connection.accepted = True

    def write(self, connection: Connection, packet: bytes) -> None:
        if not connection.closing:
            connection.out.append(packet)
            self._mark(connection)

    def write_durable(self, connection: Connection, packet: bytes) -> None:
        self._held.append((self.journal.advance(), connection, packet))

    def deliver(self, name: str, publish: Publish) -> None:
        connection = self.current[name]
        self.write(connection, encode(publish, connection.protocol))

    def durable(self, position: int) -> None:
        held = self._held
        while held and held[0][0] <= position:
            _, connection, packet = held.popleft()
            self.write(connection, packet)

    def payloads(self, name: str) -> list[bytes]:
        return [packet.payload for client, packet in self.received if client == name and isinstance(packet, Publish)]

    def _connection(
        self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable, name: str
    ) -> Connection:
        connection = Connection(principal, connect.protocol, peer, shell, 0)
        connection.keep_alive = connect.keep_alive
        self.names[connection] = name
        return connection

    def _fail_for(self, name: str) -> None:
        if name in self.faulty:
            raise ValueError("a fault of the broker")

    def _mark(self, connection: Connection) -> None:
        if not connection.dirty:
            connection.dirty = True
            self.dirty.append(connection)

    def _close(self, connection: Connection) -> None:
        self._mark(connection)
        connection.closing = True


def vehicle_principal(vehicle: str, epoch: int = 1, roles: tuple[str, ...] = ()) -> Principal:
    """The principal that an edge's policy gives to a vehicle."""
    return Principal(vehicle, VEHICLE, Permissions(f"vehicles/{vehicle}/", roles=roles), vehicle)
