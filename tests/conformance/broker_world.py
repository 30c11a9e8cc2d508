"""The broker alone: no socket, no file, and a clock that the tests advance."""

from __future__ import annotations

from mesh.broker.grant import ALL_FILTERS, ALL_TOPICS, Grant
from mesh.broker.peer import NOWHERE
from mesh.broker.principal import VEHICLE, Permissions, Principal
from mesh.broker.session import Connection
from mesh.broker.settings import Settings
from mesh.broker.shell import Flushable
from mesh.transport.refusal import malformed
from mesh.wire.decode import SERVER, PacketLimits, Reader
from mesh.wire.packets import Connect, Packet
from tests.conformance import world
from tests.conformance.world import World
from tests.support.bench import Bench

_PERMISSIONS = Permissions("", Grant(ALL_TOPICS, ALL_FILTERS, (world.REFUSED,)))


def settings() -> Settings:
    """The limits of every world."""
    made = Settings()
    made.max_packet = world.MAX_PACKET
    made.receive_maximum = world.RECEIVE_MAXIMUM
    made.in_flight = world.IN_FLIGHT
    made.max_queue_messages = world.QUEUE
    made.vehicle_sessions = 1_000_000  # all clients without a name are one vehicle
    made.max_subscriptions = world.SUBSCRIPTIONS
    made.topic_aliases = world.ALIASES
    made.max_keep_alive = world.KEEP_ALIVE
    made.max_session_expiry = world.SESSION_EXPIRY
    made.shared_patience = world.SHARED_PATIENCE
    made.system_interval = world.SYS_INTERVAL
    made.attach_grace = world.ATTACH_GRACE
    made.refused = (world.REFUSED,)
    return made


class BrokerWire(Flushable):
    """Stands in for an endpoint: passes bytes to the broker and back without a socket."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._reader = Reader(PacketLimits(world.MAX_PACKET), SERVER)
        self._connection: Connection | None = None
        self._pending = b""
        self._closed = False

    def send(self, data: bytes) -> None:
        if self._closed:
            return
        for packet in self._reader.feed(data):
            self._handle(packet)
        error = self._reader.error
        if error is not None and not self._closed:
            if self._connection is None:
                self._pending += malformed(self._reader.protocol, error.reason)
                self._closed = True
            elif not self._connection.closing:
                self._bench.broker.fail(self._connection, error.reason, str(error))
        self._bench.turn()

    def _handle(self, packet: Packet) -> None:
        if self._connection is None:
            assert isinstance(packet, Connect)
            principal = Principal(packet.username or "anonymous", VEHICLE, _PERMISSIONS)
            self._connection = self._bench.broker.open(packet, principal, NOWHERE, self)
        elif not self._connection.closing:
            self._bench.broker.receive(self._connection, packet)

    def flush(self) -> None:
        connection = self._connection
        assert connection is not None
        self._pending += b"".join(connection.out)
        connection.out.clear()
        connection.traced.clear()
        if connection.closing:
            self._closed = True

    def receive(self, patience: float) -> bytes | None:
        data, self._pending = self._pending, b""
        if data:
            return data
        return b"" if self._closed else None

    def close(self) -> None:
        if self._connection is not None and not self._closed:
            self._bench.broker.lost(self._connection)
            self._bench.turn()
        self._closed = True


class BrokerWorld(World):
    """A broker on a journal in memory."""

    name = "broker"

    def __init__(self) -> None:
        self.bench = Bench(settings())

    def wire(self) -> BrokerWire:
        return BrokerWire(self.bench)

    def elapse(self, seconds: float) -> None:
        self.bench.clock.now += seconds
        self.bench.broker.tick()
        self.bench.turn()

    def crash(self) -> None:
        self.bench = self.bench.restart()
