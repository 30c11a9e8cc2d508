"""The clients of a load: sources that publish and sinks that receive, as bare as MQTT 3.1.1 allows.

They are protocols of an asyncio transport and do nothing but answer bytes with bytes, so that the load costs less than
what it measures; compiled with the hot rooms. They know packets and counts: never addresses or time, which comes from
``now``. What always holds:

* each message bears the time when it was to be sent (nanoseconds of the monotonic clock) and its number within its
  source, so a sink knows how long it took, and whether one is missing or came again;
* a source has at most ``window`` messages unacknowledged (with QoS 0: not arrived yet at its sink); what is due
  beyond that waits in ``owed``, and its time counts from when it was due (no coordinated omission).
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
_MOST_OWED: Final = 100_000  # messages that are due and not sent: then the rate is far beyond what the system takes

now: Callable[[], int] = time.monotonic_ns


@final
class Tally:
    """What all peers of a process count. ``latency`` is in microseconds."""

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
        self.missing = 0  # numbers that were passed over
        self.repeated = 0  # numbers that came again
        self.overdue = 0  # messages that were given up because too many were due


class LoadClient:
    """One connection: ``hello`` is its CONNECT. ``ready`` is called once, with whether it was let in."""

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
        """Bytes came: answer all of them with one write."""
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
        """One packet."""

    def answered(self) -> None:
        """All packets of one read were handled."""

    def connection_lost(self, error: Any) -> None:
        """The socket is gone."""
        self.transport = None
        if not self.leaving:
            self.tally.lost_connections += 1
            self.settle(False)

    def eof_received(self) -> None:
        """The other side is done; the transport closes."""

    def pause_writing(self) -> None:
        """What is unacknowledged is bounded, and so is what is buffered."""

    def resume_writing(self) -> None:
        """See ``pause_writing``."""

    def acknowledge(self, packet: Publish) -> None:
        """Answer a message."""
        if packet.qos == 1:
            self.out.append(encode_ack(PUBACK, packet.packet_id, 0, MQTT311))
        elif packet.qos == 2:
            self.out.append(encode_ack(PUBREC, packet.packet_id, 0, MQTT311))

    def settle(self, accepted: bool) -> None:
        """Say once how the connection began."""
        ready = self.ready
        self.ready = _settled
        if accepted:
            self.tally.connected += 1
        ready(accepted)

    def leave(self) -> None:
        """Close the connection without a word: what is measured is over."""
        self.leaving = True
        if self.transport is not None:
            self.transport.abort()


def _settled(_accepted: bool) -> None:
    """Nobody waits any more."""


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
    """Subscribes to ``filter`` (none: only connects), and acknowledges what comes."""

    def __init__(
        self, hello: bytes, tally: Tally, ready: Callable[[bool], None], filter: str, qos: int
    ) -> None:
        super().__init__(hello, tally, ready)
        self.filter = filter
        self.qos = qos
        self.arrivals = Arrivals(tally)
        self.arrived = 0
        self.source: ReportSource | None = None  # who waits for the arrival, for want of an acknowledgement

    def data_received(self, data: bytes) -> None:
        """See ``LoadClient``; one look at the clock for all that one read brings."""
        self.arrived = now()
        before = self.arrivals.expected
        LoadClient.data_received(self, data)
        if self.source is not None:
            self.source.arrived(self.arrivals.expected - before)

    def handle(self, packet: Packet) -> None:
        """PUBLISH in the main."""
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
    """One of several that share what is published: who gets which message is the broker's choice, and a gap no loss."""

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
    """Publishes to ``topic``: as much as ``window`` allows once ``flow`` is set, or what ``due`` asks for."""

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
        self.owed: deque[int] = deque()

    def handle(self, packet: Packet) -> None:
        """PUBACK in the main."""
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
        owed = self.owed
        if owed:
            while owed and self.in_flight < self.window:
                self._publish(owed.popleft())
        elif self.flow and self.in_flight < self.window:
            time = now()
            while self.in_flight < self.window:
                self._publish(time)

    def arrived(self, count: int) -> None:
        """So many messages of QoS 0 have reached the sink."""
        self.in_flight -= count
        self.answered()
        self._write()

    def start(self) -> None:
        """Publish as much as the window allows from now on."""
        self.flow = True
        self.answered()
        self._write()

    def stop(self) -> None:
        """Publish no more."""
        self.flow = False
        self.owed.clear()

    def due(self, time: int) -> None:
        """One message is due at ``time``; ``flush`` sends it."""
        if self.in_flight < self.window and not self.owed:
            self._publish(time)
        elif len(self.owed) < _MOST_OWED:
            self.owed.append(time)
        else:
            self.tally.overdue += 1

    def flush(self) -> None:
        """Write what ``due`` has made."""
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
        """Commands, and what a source hears."""
        if isinstance(packet, Publish):
            self.arrivals.take(packet.payload, now())
            self.acknowledge(packet)
        elif isinstance(packet, Connack) and packet.reason == 0:
            self.out.append(encode(Subscribe(1, [Subscription(self.filter, self.qos)]), MQTT311))
        elif isinstance(packet, SubAck):
            self.settle(not is_error(packet.reasons[0]))
        else:
            ReportSource.handle(self, packet)
