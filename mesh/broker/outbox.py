"""What leaves for connections: what is to be written in this turn, and what waits until the journal has come further.

It knows connections, the journal's durable position and gates: never sessions, their queues, or why a packet is sent.
What always holds:

* nothing is put into ``out`` of a connection that is closing;
* the answers of a connection that wait leave in their order, each when the journal has reached its position and its
  gate is open; nothing leaves before CONNACK [MQTT-3.2.0-1];
* a connection is at most once among ``dirty``, and at most once among those that wait.
"""

from __future__ import annotations

from typing import Final, final

from mesh.broker.counters import BrokerCounters
from mesh.broker.gate import Gate
from mesh.broker.session import Connection
from mesh.wire.encode import encode
from mesh.wire.packets import Packet
from mesh.wire.properties import Properties

_HELD: Final = 1024  # answers of a connection that wait for the journal
_CLOSE: Final = b""  # among the answers that wait: close the connection


def explained(why: str) -> Properties | None:
    """The properties of an answer that says why."""
    if not why:
        return None
    properties = Properties()
    properties.reason_string = why
    return properties


@final
class Outbox:
    """``durable`` is the journal's durable position. ``dirty``: connections with something to write; the node empties
    it at the end of a turn. ``waiting``: connections with something that waits for the journal."""

    __slots__ = ("_counters", "dirty", "durable", "waiting")

    def __init__(self, counters: BrokerCounters) -> None:
        self._counters = counters
        self.durable = 0
        self.dirty: list[Connection] = []
        self.waiting: list[Connection] = []

    # To be written in this turn

    def mark(self, connection: Connection) -> None:
        """The connection has something to write."""
        if not connection.dirty:
            connection.dirty = True
            self.dirty.append(connection)

    def write(self, connection: Connection, packet: bytes) -> None:
        """Put a packet out, unless the connection is closing; behind CONNACK, if that waits for the journal
        [MQTT-3.2.0-1]."""
        if connection.held and not connection.accepted:
            connection.held.append((0, None, packet))
        elif not connection.closing:
            self._counters.answered += 1
            connection.out.append(packet)
            self.mark(connection)

    def write_fitting(self, connection: Connection, packet: Packet, plain: Packet) -> None:
        """Put out ``packet``, or ``plain``, which says less, if the client takes no packet as large as that
        [MQTT-3.1.2-24]; nothing if even that is too large."""
        for candidate in (packet, plain):
            data = encode(candidate, connection.protocol)
            if connection.max_packet == 0 or len(data) <= connection.max_packet:
                self.write(connection, data)
                return
        self._counters.dropped_large += 1

    def accept(self, connection: Connection, connack: bytes) -> None:
        """Put CONNACK with success out: the client may be sent packets from now on."""
        connection.accepted = True
        self.write(connection, connack)

    def close(self, connection: Connection) -> None:
        """Close the connection when what is in ``out`` is written."""
        self.mark(connection)
        connection.closing = True

    # When the journal has come further

    def wait(self, connection: Connection) -> None:
        """Look at the connection again when the journal has come further."""
        if not connection.waiting:
            connection.waiting = True
            self.waiting.append(connection)

    def write_after(self, connection: Connection, position: int, packet: bytes, gate: Gate | None = None) -> None:
        """Put a packet out when the journal has reached ``position`` and ``gate`` is open, behind those that wait
        already.
        """
        if position <= self.durable and not connection.held and gate is None:
            self.write(connection, packet)
        else:
            connection.held.append((position, gate, packet))
            self.wait(connection)

    def accept_after(self, connection: Connection, position: int, connack: bytes) -> None:
        """Put CONNACK with success out when the journal has reached ``position``."""
        if position <= self.durable:
            self.accept(connection, connack)
        else:
            connection.held.append((position, None, connack))
            self.wait(connection)

    def close_after(self, connection: Connection, position: int) -> None:
        """Close the connection when the journal has reached ``position``."""
        if position <= self.durable:
            self.close(connection)
        else:
            connection.held.append((position, None, _CLOSE))
            self.wait(connection)

    def reached(self, position: int) -> list[Connection]:
        """The journal has reached ``position``: returns the connections that waited, which are to be looked at now."""
        self.durable = position
        waiting = self.waiting
        self.waiting = []
        for connection in waiting:
            connection.waiting = False
        return waiting

    def release(self, connection: Connection) -> None:
        """Put out the answers of a connection that need not wait any longer."""
        held = connection.held
        while held:
            position, gate, packet = held.first()
            if position > self.durable or (gate is not None and gate.pending > 0):
                self.wait(connection)
                return
            held.popleft()
            if not packet:
                self.close(connection)
            elif connection.accepted:
                self.write(connection, packet)
            else:
                self.accept(connection, packet)

    def update_congestion(self, connection: Connection) -> None:
        """See whether so much of a connection waits for its answer that the shell must not read it, or may again."""
        unanswered, most = len(connection.inbound.receipts), connection.receive_maximum
        if unanswered >= most or len(connection.held) >= _HELD:
            connection.congested = True
        elif connection.congested and unanswered <= most // 2 and len(connection.held) <= _HELD // 2:
            connection.congested = False
            self.mark(connection)
