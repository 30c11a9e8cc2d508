"""The output of connections: what is written in this turn, and what waits for the journal.

It knows connections, the journal's durable position and gates: never sessions, their queues, or why a packet is sent.
What always holds:

* nothing is put into ``out`` of a connection that is closing;
* the waiting answers of a connection leave in order, each when the journal is durable up to its position and its gate
  is open; nothing leaves before CONNACK [MQTT-3.2.0-1];
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
    """Properties with the reason string ``why``; ``None`` if it is empty."""
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

    # Output of this turn

    def mark(self, connection: Connection) -> None:
        """Mark the connection as dirty: it has output."""
        if not connection.dirty:
            connection.dirty = True
            self.dirty.append(connection)

    def write(self, connection: Connection, packet: bytes) -> None:
        """Put a packet into ``out``, unless the connection is closing; after CONNACK, if that waits for the journal
        [MQTT-3.2.0-1]."""
        if connection.held and not connection.accepted:
            connection.held.append((0, None, packet))
        elif not connection.closing:
            self._counters.answered += 1
            connection.out.append(packet)
            self.mark(connection)

    def write_fitting(self, connection: Connection, packet: Packet, plain: Packet) -> None:
        """Write ``packet``, or the shorter ``plain`` if ``packet`` exceeds the client's maximum packet size
        [MQTT-3.1.2-24]; nothing if ``plain`` exceeds it too."""
        for candidate in (packet, plain):
            data = encode(candidate, connection.protocol)
            if connection.max_packet == 0 or len(data) <= connection.max_packet:
                self.write(connection, data)
                return
        self._counters.dropped_large += 1

    def accept(self, connection: Connection, connack: bytes) -> None:
        """Write the CONNACK that accepts the client: other packets may follow from now on."""
        connection.accepted = True
        self.write(connection, connack)

    def close(self, connection: Connection) -> None:
        """Close the connection when its ``out`` is written."""
        self.mark(connection)
        connection.closing = True

    # Output that waits for the journal

    def wait(self, connection: Connection) -> None:
        """Return the connection from ``reached`` when the journal has advanced."""
        if not connection.waiting:
            connection.waiting = True
            self.waiting.append(connection)

    def write_after(self, connection: Connection, position: int, packet: bytes, gate: Gate | None = None) -> None:
        """Write a packet when the journal is durable up to ``position`` and ``gate`` is open, after the packets that
        wait already.
        """
        if position <= self.durable and not connection.held and gate is None:
            self.write(connection, packet)
        else:
            connection.held.append((position, gate, packet))
            self.wait(connection)

    def accept_after(self, connection: Connection, position: int, connack: bytes) -> None:
        """Write the CONNACK that accepts the client when the journal is durable up to ``position``."""
        if position <= self.durable:
            self.accept(connection, connack)
        else:
            connection.held.append((position, None, connack))
            self.wait(connection)

    def close_after(self, connection: Connection, position: int) -> None:
        """Close the connection when the journal is durable up to ``position``."""
        if position <= self.durable:
            self.close(connection)
        else:
            connection.held.append((position, None, _CLOSE))
            self.wait(connection)

    def reached(self, position: int) -> list[Connection]:
        """The journal is durable up to ``position``. Returns the connections that waited, for the caller to check."""
        self.durable = position
        waiting = self.waiting
        self.waiting = []
        for connection in waiting:
            connection.waiting = False
        return waiting

    def release(self, connection: Connection) -> None:
        """Write the answers of a connection that need not wait any longer."""
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
        """Set ``congested`` if too many answers of a connection are outstanding, and clear it when half are done."""
        unanswered, most = len(connection.inbound.receipts), connection.receive_maximum
        if unanswered >= most or len(connection.held) >= _HELD:
            connection.congested = True
        elif connection.congested and unanswered <= most // 2 and len(connection.held) <= _HELD // 2:
            connection.congested = False
            self.mark(connection)
