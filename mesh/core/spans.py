"""The spans of sampled messages on their way to one edge.

It knows deliveries and when they start and end: never how they are sent. What always holds: a span that was started is
ended when its delivery is answered, or when the connection is lost.
"""

from __future__ import annotations

from typing import final

from mesh.broker.broker import Broker
from mesh.broker.trace import CLIENT, RELAY, SPOOL
from mesh.session.message import Message
from mesh.session.outbound import Delivery
from mesh.session.span import Span
from mesh.wire import reasons
from mesh.wire.tracecontext import TraceContext


@final
class RelaySpans:
    """Spans by delivery, for those of QoS 1 and 2 that are with the edge."""

    __slots__ = ("_broker", "_under_way")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._under_way: dict[Delivery, Span] = {}

    def start(self, delivery: Delivery, message: Message, now: float) -> TraceContext | None:
        """A delivery is sent: its context, if its message is sampled."""
        tracer = self._broker.tracer
        parent = message.trace
        if parent is None or not tracer.enabled:
            return None
        topic = message.topic
        vehicle = self._broker.vehicle_of(topic)
        link = parent if message.fan_out else None
        if delivery.item:
            parent = tracer.record(SPOOL, parent, topic, vehicle, int(delivery.since * 1e9), int(now * 1e9))
        span = tracer.start(RELAY, parent, topic, vehicle, CLIENT, link)
        if delivery.qos:
            self._under_way[delivery] = span
        else:
            span.end()
        return span.context

    def end(self, delivery: Delivery, reason: int) -> None:
        """The edge has answered."""
        if self._under_way:
            span = self._under_way.pop(delivery, None)
            if span is not None:
                span.end(reason)

    def lost(self) -> None:
        """The connection is gone: no answer comes any more."""
        for span in self._under_way.values():
            span.end(reasons.SERVER_UNAVAILABLE)
        self._under_way.clear()
