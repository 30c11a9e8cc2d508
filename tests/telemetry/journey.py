"""The spans of a message's path through a mesh, made by the real tracers of three nodes, without the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from time import time_ns

from mesh.broker.peer import Peer
from mesh.broker.trace import CLIENT, PRODUCER, RELAY, SEND, SPOOL, WAIT, Tracer
from mesh.policy.template import Template
from mesh.session.span import Span
from mesh.telemetry.status import SpansStatus
from mesh.telemetry.tracing import NodeTracer, open_tracer, receiver_at
from mesh.wire.packets import Publish
from mesh.wire.properties import Properties
from mesh.wire.tracecontext import TraceContext

VEHICLE = "WVW12345"
COMMAND = f"vehicles/{VEHICLE}/cmd/doors"
REPORT = f"vehicles/{VEHICLE}/position"

CAR = Peer("192.0.2.7", 50123, "mqtt://127.0.0.1:1883")
BACKEND = Peer("2001:db8::7", 40001, "mqtt://[::1]:1884")
CORE = Peer(listener="tier://127.0.0.1:7001")  # over the Unix socket of the edge
EDGE = Peer("/run/mesh/tier-7001.sock")  # the same connection, seen from its other side

DOWNSTREAM = {  # name at its node: name of the parent at its node; empty: the publisher's span
    ("core-1", "process vehicles/{vehicle}/cmd"): "",
    ("core-1", "spool vehicles/{vehicle}/cmd"): "process",
    ("core-1", "relay vehicles/{vehicle}/cmd"): "spool",
    ("edge-1", "process vehicles/{vehicle}/cmd"): "relay",
    ("edge-1", "wait vehicles/{vehicle}/cmd"): "process",
    ("edge-1", "send vehicles/{vehicle}/cmd"): "wait",
    ("door-1", "relay vehicles/{vehicle}/cmd"): "send",
}
UPSTREAM = {
    ("edge-1", "process vehicles/{vehicle}/position"): "",
    ("edge-1", "send vehicles/{vehicle}/position"): "process",
    ("core-1", "process vehicles/{vehicle}/position"): "send",
    ("core-1", "wait vehicles/{vehicle}/position"): "process",
    ("core-1", "send vehicles/{vehicle}/position"): "wait",
}

TOPICS = Template("vehicles/{vehicle}/#")


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
        return Journey(*(_tracer(endpoint, kind) for kind in ("core", "edge", "door")))

    def downstream(self, caller: TraceContext | None) -> str:
        """A command from a back end to a vehicle that was offline; returns the identifier of its trace."""
        received = taken(ingress(self.core, carrying(COMMAND, caller), VEHICLE, "erp", BACKEND))
        now = time_ns()
        spooled = self.core.record(SPOOL, received.context, COMMAND, VEHICLE, "core-1", now - 30_000_000, now)
        sent = self.core.start(RELAY, spooled, COMMAND, VEHICLE, "core-1", EDGE, PRODUCER)
        arrived = taken(ingress(self.edge, carrying(COMMAND, sent.context), VEHICLE, "core-1", CORE, trusted=True))
        arrived.end()
        sent.end()
        received.end()
        waited = self.edge.record(WAIT, arrived.context, COMMAND, VEHICLE, "car", now, now + 1_000)
        delivery = self.edge.start(SEND, waited, COMMAND, VEHICLE, "car", CAR, PRODUCER)
        self.door.start(RELAY, delivery.context, COMMAND, VEHICLE, "car", CAR, CLIENT).end()
        delivery.end()
        return received.context.trace_id

    def upstream(self) -> str:
        """A report of a vehicle to two back ends; returns the identifier of its trace."""
        received = taken(ingress(self.edge, carrying(REPORT, None), VEHICLE, "car", CAR))
        sent = self.edge.start(SEND, received.context, REPORT, VEHICLE, "core-1", CORE, PRODUCER)
        arrived = taken(ingress(self.core, carrying(REPORT, sent.context), VEHICLE, "core-1", EDGE, trusted=True))
        now = time_ns()
        for client in ("erp", "map"):
            waited = self.core.record(WAIT, arrived.context, REPORT, VEHICLE, client, now, now + 1_000)
            link = arrived.context
            self.core.start(SEND, waited, REPORT, VEHICLE, client, BACKEND, PRODUCER, link).end()
        arrived.end()
        sent.end()
        received.end()
        return received.context.trace_id

    def end(self) -> bool:
        """Export all and stop; return whether every span was accepted."""
        tracers = (self.core, self.edge, self.door)
        flushed = [tracer.flush(10.0) for tracer in tracers]
        for tracer in tracers:
            tracer.close()
        return all(flushed) and all(counts(tracer).dropped == 0 for tracer in tracers)


def _tracer(endpoint: str, kind: str) -> NodeTracer:
    return open_tracer(receiver_at(endpoint), f"mesh-{kind}", f"{kind}-1", "demo", 1.0, TOPICS)


def ingress(
    tracer: Tracer, publish: Publish, vehicle: str, client: str = "car", peer: Peer = CAR, trusted: bool = False
) -> Span | None:
    """Take a message in as a node does."""
    return tracer.ingress(publish, vehicle, client, peer, trusted) if tracer.considers(publish, trusted) else None


def counts(tracer: NodeTracer) -> SpansStatus:
    """The figures of a tracer that has a receiver."""
    status = tracer.status()
    assert status is not None, "the tracer has no receiver"
    return status


def taken(span: Span | None) -> Span:
    """The span that an ingress returned."""
    assert span is not None, "the message was not sampled"
    return span
