"""The spans of sampled messages that are sent to one edge.

It knows deliveries, when they start and end, and the two ends of the connection: never how they are sent. What always
holds: a span ends when its delivery is answered, or when the connection is lost.
"""

from __future__ import annotations

from typing import final

from mesh.broker.broker import Broker
from mesh.broker.peer import NOWHERE
from mesh.broker.trace import PRODUCER, RELAY, SPOOL
from mesh.session.message import Message
from mesh.session.outbound import Delivery
from mesh.session.span import Span
from mesh.wire import reasons
from mesh.wire.tracecontext import TraceContext


@final
class Ends:
    """The two ends of the connection to one edge: ``client`` is the MQTT client identifier of this core, ``peer`` the
    edge's end of the current or the last connection."""

    __slots__ = ("client", "peer")

    def __init__(self, client: str) -> None:
        self.client = client
        self.peer = NOWHERE


@final
class RelaySpans:
    """Spans by delivery, for deliveries of QoS 1 and 2 that the edge has not answered."""

    __slots__ = ("_broker", "_ends", "_under_way")

    def __init__(self, broker: Broker, ends: Ends) -> None:
        self._broker = broker
        self._ends = ends
        self._under_way: dict[Delivery, Span] = {}

    def start(self, delivery: Delivery, message: Message, now: float) -> TraceContext | None:
        """Start the span of a delivery. Returns its context if the message is sampled."""
        tracer = self._broker.tracer
        parent = message.trace
        if parent is None or not tracer.enabled:
            return None
        topic, ends = message.topic, self._ends
        link = parent if message.fan_out else None
        if delivery.item:
            parent = tracer.record(SPOOL, parent, topic, "", ends.client, int(delivery.since * 1e9), int(now * 1e9))
        span = tracer.start(RELAY, parent, topic, "", ends.client, ends.peer, PRODUCER, link)
        if delivery.qos:
            self._under_way[delivery] = span
        else:
            span.end()
        return span.context

    def end(self, delivery: Delivery, reason: int) -> None:
        """The edge has answered the delivery."""
        if self._under_way:
            span = self._under_way.pop(delivery, None)
            if span is not None:
                span.end(reason)

    def lost(self) -> None:
        """The connection is lost: end all open spans."""
        for span in self._under_way.values():
            span.end(reasons.SERVER_UNAVAILABLE)
        self._under_way.clear()
