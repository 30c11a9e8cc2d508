"""One connection to the broker, handled as ``mesh.transport.endpoint`` does, without the socket.

Bytes go through ``Reader(SERVER)``, CONNECT opens the connection, a malformed packet fails it, and a ``Watch`` checks
the broker's output before the client gets it.
"""

from __future__ import annotations

from mesh.broker.broker import Broker
from mesh.broker.peer import NOWHERE
from mesh.broker.principal import Principal
from mesh.broker.session import Connection
from mesh.broker.shell import Flushable
from mesh.transport.refusal import malformed
from mesh.wire.decode import CLIENT, SERVER, Reader
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import Connect, Packet
from tests.fuzz.watch import Watch, insist


class Line(Flushable):
    """``closed``: packets are neither sent nor received. ``handled`` counts the packets that were read; ``refused`` is
    1 if a malformed packet followed."""

    __slots__ = (
        "_broker", "_principal", "_reader", "_seen", "closed", "connection", "handled", "heard", "refused", "watch",
    )  # fmt: skip

    def __init__(self, broker: Broker, principal: Principal, limits: PacketLimits) -> None:
        self._broker = broker
        self._principal = principal
        self._reader = Reader(limits, SERVER)
        self._seen = 0  # how many entries of ``connection.out`` the watch has seen
        self.connection: Connection | None = None
        self.watch: Watch | None = None
        self.heard: list[Packet] = []  # packets that the client has received and not handled
        self.closed = False
        self.handled = 0
        self.refused = 0

    def feed(self, data: bytes) -> None:
        """The client sends bytes."""
        if self.closed:
            return
        packets = self._reader.feed(data)
        if self.connection is not None:
            self._deliver(packets)
        elif packets and isinstance(packets[0], Connect):
            self._open(packets[0])
            self._deliver(packets[1:])
        elif self._reader.error is not None:
            self._turn_away()

    def _open(self, connect: Connect) -> None:
        broker = self._broker
        self.handled += 1
        self.watch = Watch(connect, broker.settings.in_flight)
        self.connection = broker.open(connect, self._principal, NOWHERE, self)

    def _turn_away(self) -> None:
        error = self._reader.error
        assert error is not None
        answer = malformed(self._reader.protocol, error.reason)
        if answer:
            reader = Reader(PacketLimits(), CLIENT, 5 if answer[1] == 3 else 4)
            insist(len(reader.feed(answer)) == 1 and reader.error is None, f"a refusal that cannot be read: {answer!r}")
        self.refused = 1
        self.closed = True

    def _deliver(self, packets: list[Packet]) -> None:
        connection, watch = self.connection, self.watch
        assert connection is not None
        assert watch is not None
        receive = self._broker.receive
        for packet in packets:
            if connection.closing:
                return
            if len(connection.out) > self._seen:
                self.look()
            watch.said(packet)
            receive(connection, packet)
            self.handled += 1
            ended = connection.closing or connection.session is None  # it waits for the journal to close
            insist(ended or not watch.misfit, f"{packet} does not fit, and the client is not closed")
        error = self._reader.error
        if error is not None and not connection.closing:
            self.refused = 1
            self._broker.fail(connection, error.reason, str(error))

    def look(self) -> None:
        """Show the watch the broker's new output."""
        assert self.connection is not None
        assert self.watch is not None
        out = self.connection.out
        self.heard += self.watch.heard(out[self._seen :] if self._seen else out)
        self._seen = len(out)

    def flush(self) -> None:
        """Write the output at the end of a turn."""
        connection = self.connection
        if connection is None:
            return
        if self.closed:
            insist(not connection.out, "there is output after the connection was closed")
            return
        if len(connection.out) > self._seen:
            self.look()
        connection.out.clear()
        connection.traced.clear()
        self._seen = 0
        self.closed = connection.closing

    @property
    def held(self) -> bool:
        """Whether the endpoint does not read the client now."""
        return self.connection is not None and self.connection.congested

    def lose(self) -> None:
        """The socket is closed."""
        connection = self.connection
        if connection is not None and not self.closed:
            if connection.closing:
                connection.out.clear()  # output that the client never reads
            else:
                self._broker.lost(connection)
            insist(not connection.out, "there is output for a client that has disconnected")
        self._seen = 0
        self.closed = True
