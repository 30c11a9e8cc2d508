"""The clients of a load: sources that publish and sinks that receive, with the least that MQTT 3.1.1 requires.

They are protocols of an asyncio transport. They are small, and compiled with the hot rooms, so that the load costs less
than the system that it measures. They know packets and counts; they must never know addresses, or a clock other than
``now``. What always holds:

* each message has the time when it was due (nanoseconds of the monotonic clock) and its number within its source, so
  that a sink can measure its latency and count missing and repeated messages;
* a source has at most ``window`` messages unacknowledged (with QoS 0: not yet arrived at its sink); further messages
  that are due wait in ``waiting``, and their latency starts when they were due (no coordinated omission).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Any, ClassVar, Final, final

from mesh.bench.histogram import Histogram
from mesh.wire.decode import CLIENT, Reader
from mesh.wire.encode import encode, encode_ack, encode_publish
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    MQTT311,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Connack,
    Packet,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
)
from mesh.wire.reasons import is_error

STAMP: Final = Struct("<QQ")  # due, number; then the filler
LEAST_PAYLOAD: Final = STAMP.size
_IDENTIFIERS: Final = 65_535
_MOST_WAITING: Final = 100_000  # messages that are due and not sent; with more, the rate is far too high for the system

now: Callable[[], int] = time.monotonic_ns


@final
class Tally:
    """The counts of all peers of a process. ``latency`` is in microseconds."""

    FIELDS: ClassVar[tuple[str, ...]] = (
        "acked", "connected", "lost_connections", "missing", "overdue", "received", "repeated", "sent",
    )  # fmt: skip
    __slots__ = (*FIELDS, "latency")

    def __init__(self) -> None:
        self.latency = Histogram()
        self.connected = 0
        self.lost_connections = 0
        self.sent = 0
        self.acked = 0
        self.received = 0
        self.missing = 0  # numbers that were skipped
        self.repeated = 0  # messages that arrived again
        self.overdue = 0  # messages that were never sent because too many were due


class LoadClient:
    """One connection. ``hello`` is its CONNECT; ``ready`` is called once, with ``True`` if it was accepted."""

    def __init__(self, hello: bytes, tally: Tally, ready: Callable[[bool], None]) -> None:
        self.hello = hello
        self.tally = tally
        self.ready = ready
        self.transport: Any = None
        self.reader = Reader(PacketLimits(), CLIENT, MQTT311)
        self.leaving = False
        self.out: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        """The socket is open."""
        self.transport = transport
        transport.write(self.hello)

    def data_received(self, data: bytes) -> None:
        """Handle all packets of one read, and answer them with one write."""
        for packet in self.reader.feed(data):
            self.handle(packet)
        self.answered()
        out = self.out
        if out:
            transport = self.transport
            if transport is not None:
                transport.write(b"".join(out))
            out.clear()

    def handle(self, packet: Packet) -> None:
        """Handle one packet."""

    def answered(self) -> None:
        """Called when all packets of one read are handled."""

    def connection_lost(self, error: Any) -> None:
        """The socket is closed."""
        self.transport = None
        if not self.leaving:
            self.tally.lost_connections += 1
            self.settle(False)

    def eof_received(self) -> None:
        """The other side has closed its end; the transport closes."""

    def pause_writing(self) -> None:
        """Nothing to do: the unacknowledged messages are bounded, and so is the buffer."""

    def resume_writing(self) -> None:
        """See ``pause_writing``."""

    def acknowledge(self, packet: Publish) -> None:
        """Acknowledge a message."""
        if packet.qos == 1:
            self.out.append(encode_ack(PUBACK, packet.packet_id, 0, MQTT311))
        elif packet.qos == 2:
            self.out.append(encode_ack(PUBREC, packet.packet_id, 0, MQTT311))

    def settle(self, accepted: bool) -> None:
        """Call ``ready`` once."""
        ready = self.ready
        self.ready = _settled
        if accepted:
            self.tally.connected += 1
        ready(accepted)

    def leave(self) -> None:
        """Abort the connection, without a DISCONNECT: the measurement is over."""
        self.leaving = True
        if self.transport is not None:
            self.transport.abort()


def _settled(_accepted: bool) -> None:
    """``ready`` was called already."""


@final
class Arrivals:
    """The messages of one source, by their numbers, as they arrive."""

    __slots__ = ("expected", "tally")

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.expected = 0

    def take(self, payload: bytes, time: int) -> None:
        """A message has arrived at ``time``."""
        tally = self.tally
        due, number = STAMP.unpack_from(payload)
        if number == self.expected:
            self.expected = number + 1
            tally.received += 1
        elif number > self.expected:
            tally.missing += number - self.expected
            self.expected = number + 1
            tally.received += 1
        else:
            tally.repeated += 1
        tally.latency.record((time - due) // 1000)


class Sink(LoadClient):
    """Subscribes to ``filter`` (if empty, only connects), and acknowledges the messages."""

    def __init__(
        self, hello: bytes, tally: Tally, ready: Callable[[bool], None], filter: str, qos: int
    ) -> None:
        super().__init__(hello, tally, ready)
        self.filter = filter
        self.qos = qos
        self.arrivals = Arrivals(tally)
        self.arrived = 0
        self.source: ReportSource | None = None  # with QoS 0: told of arrivals, as there are no acknowledgements

    def data_received(self, data: bytes) -> None:
        """See ``LoadClient``. The clock is read once for all packets of one read."""
        self.arrived = now()
        before = self.arrivals.expected
        LoadClient.data_received(self, data)
        if self.source is not None:
            self.source.arrived(self.arrivals.expected - before)

    def handle(self, packet: Packet) -> None:
        """Handle a packet; most are PUBLISH."""
        if isinstance(packet, Publish):
            self.received(packet)
        elif isinstance(packet, Ack):
            if packet.type == PUBREL:
                self.out.append(encode_ack(PUBCOMP, packet.packet_id, 0, MQTT311))
        elif isinstance(packet, Connack):
            if packet.reason:
                self.settle(False)
            elif self.filter:
                self.out.append(encode(Subscribe(1, [Subscription(self.filter, self.qos)]), MQTT311))
            else:
                self.settle(True)
        elif isinstance(packet, SubAck):
            self.settle(not is_error(packet.reasons[0]))

    def received(self, packet: Publish) -> None:
        """A message has arrived."""
        self.arrivals.take(packet.payload, self.arrived)
        self.acknowledge(packet)


@final
class GroupMember(Sink):
    """One of several sinks of a shared subscription: the broker chooses the sink, so a skipped number is no loss."""

    def received(self, packet: Publish) -> None:
        """See ``Sink``."""
        tally = self.tally
        if packet.dup:
            tally.repeated += 1
        else:
            tally.received += 1
        tally.latency.record((self.arrived - STAMP.unpack_from(packet.payload)[0]) // 1000)
        self.acknowledge(packet)


@final
class ReportCollector(Sink):
    """A sink for many sources, one for each topic."""

    def __init__(
        self, hello: bytes, tally: Tally, ready: Callable[[bool], None], filter: str, qos: int
    ) -> None:
        super().__init__(hello, tally, ready, filter, qos)
        self.by_topic: dict[str, Arrivals] = {}

    def received(self, packet: Publish) -> None:
        """See ``Sink``."""
        arrivals = self.by_topic.get(packet.topic)
        if arrivals is None:
            arrivals = self.by_topic[packet.topic] = Arrivals(self.tally)
        arrivals.take(packet.payload, self.arrived)
        self.acknowledge(packet)


class ReportSource(LoadClient):
    """Publishes to ``topic``: as many messages as ``window`` allows while ``flow`` is set, or those of ``due``."""

    def __init__(
        self, hello: bytes, tally: Tally, ready: Callable[[bool], None], topic: str, qos: int, size: int, window: int
    ) -> None:
        super().__init__(hello, tally, ready)
        self.topic = topic.encode()
        self.qos = qos
        self.filler = b"x" * max(0, size - LEAST_PAYLOAD)
        self.window = window
        self.flow = False
        self.number = 0
        self.in_flight = 0
        self.waiting: deque[int] = deque()

    def handle(self, packet: Packet) -> None:
        """Handle a packet; most are PUBACK."""
        if isinstance(packet, Ack):
            if packet.type == PUBREC:
                self.out.append(encode_ack(PUBREL, packet.packet_id, 0, MQTT311))
            else:
                self.in_flight -= 1
                self.tally.acked += 1
        elif isinstance(packet, Connack):
            self.settle(packet.reason == 0)

    def answered(self) -> None:
        """Fill the window again."""
        waiting = self.waiting
        if waiting:
            while waiting and self.in_flight < self.window:
                self._publish(waiting.popleft())
        elif self.flow and self.in_flight < self.window:
            time = now()
            while self.in_flight < self.window:
                self._publish(time)

    def arrived(self, count: int) -> None:
        """``count`` messages of QoS 0 have reached the sink."""
        self.in_flight -= count
        self.answered()
        self._write()

    def start(self) -> None:
        """Start to publish as many messages as the window allows."""
        self.flow = True
        self.answered()
        self._write()

    def stop(self) -> None:
        """Stop publishing."""
        self.flow = False
        self.waiting.clear()

    def due(self, time: int) -> None:
        """One message is due at ``time``; ``flush`` sends it."""
        if self.in_flight < self.window and not self.waiting:
            self._publish(time)
        elif len(self.waiting) < _MOST_WAITING:
            self.waiting.append(time)
        else:
            self.tally.overdue += 1

    def flush(self) -> None:
        """Write the messages of ``due``."""
        self._write()

    def _write(self) -> None:
        if self.out and self.transport is not None:
            self.transport.write(b"".join(self.out))
        self.out.clear()

    def _publish(self, due: int) -> None:
        number = self.number
        self.number = number + 1
        self.put(self.topic, due, number, number)

    def put(self, topic: bytes, due: int, number: int, total: int) -> None:
        """Message ``number`` of the topic, the ``total``-th of this source."""
        self.tally.sent += 1
        packet_id = total % _IDENTIFIERS + 1
        payload = STAMP.pack(due, number) + self.filler
        self.out.append(encode_publish(topic, payload, self.qos, False, False, packet_id, b"", MQTT311))
        self.in_flight += 1


@final
class Commander(ReportSource):
    """A source that publishes to ``topics`` in turn."""

    def __init__(
        self, hello: bytes, tally: Tally, ready: Callable[[bool], None], topics: list[bytes], qos: int, size: int,
        window: int,
    ) -> None:
        super().__init__(hello, tally, ready, "", qos, size, window)
        self.topics = topics

    def _publish(self, due: int) -> None:
        total = self.number
        self.number = total + 1
        count = len(self.topics)
        self.put(self.topics[total % count], due, total // count, total)


@final
class Car(ReportSource):
    """A source of reports that also subscribes to ``filter``, its commands."""

    def __init__(
        self, hello: bytes, tally: Tally, ready: Callable[[bool], None], topic: str, filter: str, qos: int, size: int,
        window: int,
    ) -> None:
        super().__init__(hello, tally, ready, topic, qos, size, window)
        self.filter = filter
        self.arrivals = Arrivals(tally)

    def handle(self, packet: Packet) -> None:
        """Handle a command, or a packet of a source."""
        if isinstance(packet, Publish):
            self.arrivals.take(packet.payload, now())
            self.acknowledge(packet)
        elif isinstance(packet, Connack) and packet.reason == 0:
            self.out.append(encode(Subscribe(1, [Subscription(self.filter, self.qos)]), MQTT311))
        elif isinstance(packet, SubAck):
            self.settle(not is_error(packet.reasons[0]))
        else:
            ReportSource.handle(self, packet)
