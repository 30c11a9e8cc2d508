"""A message's way through a mesh as spans, made by the real tracers of three nodes, without the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from time import time_ns

from mesh.broker.trace import INTERNAL, PRODUCER, RELAY, SEND, SPOOL, WAIT, Tracer
from mesh.session.span import Span
from mesh.telemetry.tracing import NodeTracer, open_tracer
from mesh.wire.packets import Publish
from mesh.wire.properties import Properties
from mesh.wire.tracecontext import TraceContext

VEHICLE = "WVW12345"
COMMAND = f"vehicles/{VEHICLE}/cmd"
REPORT = f"vehicles/{VEHICLE}/position"

DOWNSTREAM = {  # name at its node: name of the parent at its node; empty: the publisher's own span
    ("core-1", "receive vehicles/{vehicle}/cmd"): "",
    ("core-1", "spool vehicles/{vehicle}/cmd"): "receive",
    ("core-1", "send vehicles/{vehicle}/cmd"): "spool",
    ("edge-1", "receive vehicles/{vehicle}/cmd"): "send",
    ("edge-1", "wait vehicles/{vehicle}/cmd"): "receive",
    ("edge-1", "send vehicles/{vehicle}/cmd"): "wait",
    ("door-1", "relay vehicles/{vehicle}/cmd"): "send",
}
UPSTREAM = {
    ("edge-1", "receive vehicles/{vehicle}/position"): "",
    ("edge-1", "send vehicles/{vehicle}/position"): "receive",
    ("core-1", "receive vehicles/{vehicle}/position"): "send",
    ("core-1", "send vehicles/{vehicle}/position"): "receive",
}


def template(topic: str) -> str:
    """The low-cardinality form of a topic below ``vehicles/``."""
    levels = topic.split("/")
    return "/".join([levels[0], "{vehicle}", *levels[2:]])


def carrying(topic: str, context: TraceContext | None, payload: bytes = b"unlock") -> Publish:
    """A PUBLISH with a context in its user properties."""
    if context is None:
        return Publish(topic, payload, qos=1, packet_id=1)
    properties = Properties()
    properties.user = [("traceparent", context.traceparent())]
    return Publish(topic, payload, qos=1, packet_id=1, properties=properties)


@dataclass
class Journey:
    """The tracers of a core, an edge and a front door."""

    core: NodeTracer
    edge: NodeTracer
    door: NodeTracer

    @staticmethod
    def begin(endpoint: str) -> Journey:
        kinds = ("core", "edge", "door")
        return Journey(*(open_tracer(endpoint, f"mesh-{kind}", f"{kind}-1", "demo", 1.0, template) for kind in kinds))

    def downstream(self, caller: TraceContext | None) -> str:
        """A command from a back end to a vehicle that was away; the identifier of its trace."""
        received = taken(ingress(self.core, carrying(COMMAND, caller), VEHICLE))
        now = time_ns()
        spooled = self.core.record(SPOOL, received.context, COMMAND, VEHICLE, now - 30_000_000, now)
        sent = self.core.start(SEND, spooled, COMMAND, VEHICLE, PRODUCER)
        arrived = taken(ingress(self.edge, carrying(COMMAND, sent.context), VEHICLE, trusted=True))
        arrived.end()
        sent.end()
        received.end()
        wait = self.edge.start(WAIT, arrived.context, COMMAND, VEHICLE, INTERNAL)
        wait.end()
        delivery = self.edge.start(SEND, wait.context, COMMAND, VEHICLE, PRODUCER)
        self.door.start(RELAY, delivery.context, COMMAND, VEHICLE, PRODUCER).end()
        delivery.end()
        return received.context.trace_id

    def upstream(self) -> str:
        """A report of a vehicle to two back ends; the identifier of its trace."""
        received = taken(ingress(self.edge, carrying(REPORT, None), VEHICLE))
        sent = self.edge.start(SEND, received.context, REPORT, VEHICLE, PRODUCER)
        arrived = taken(ingress(self.core, carrying(REPORT, sent.context), VEHICLE, trusted=True))
        for _ in range(2):
            self.core.start(SEND, arrived.context, REPORT, VEHICLE, PRODUCER, arrived.context).end()
        arrived.end()
        sent.end()
        received.end()
        return received.context.trace_id

    def end(self) -> bool:
        """Export all and stop; whether every span was taken."""
        tracers = (self.core, self.edge, self.door)
        flushed = [tracer.flush(10.0) for tracer in tracers]
        for tracer in tracers:
            tracer.close()
        return all(flushed) and all(tracer.status().dropped == 0 for tracer in tracers)


def ingress(tracer: Tracer, publish: Publish, vehicle: str, trusted: bool = False) -> Span | None:
    """As a node takes a message in."""
    return tracer.ingress(publish, vehicle, trusted) if tracer.considers(publish, trusted) else None


def taken(span: Span | None) -> Span:
    """The span that an ingress gave."""
    assert span is not None, "the message was not sampled"
    return span
