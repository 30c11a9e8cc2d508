"""The tracer of a node: implements the broker's ``Tracer`` with sampling, spans and their export.

It knows how these three work together. It must never wait or raise on the loop. What always holds: each node has its
own tracer and there is no global one, so several nodes can run in one process.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import time_ns
from typing import Final, final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExporter

from mesh.broker.peer import Peer
from mesh.broker.trace import CONSUMER, INTERNAL, PROCESS, Tracer
from mesh.policy.template import Template
from mesh.session.span import Span
from mesh.telemetry.convention import Convention, resource
from mesh.telemetry.export import ExportThread
from mesh.telemetry.sampling import Sampler
from mesh.telemetry.spans import LiveSpan, child, new_trace
from mesh.telemetry.status import SpansStatus
from mesh.wire.packets import Publish
from mesh.wire.tracecontext import TraceContext, find

# A running endpoint answers in milliseconds. Within five seconds the exporter tries three times.
EXPORT_SECONDS: Final = 5.0
# The controller and the operator wait for a node that stops.
CLOSE_SECONDS: Final = 2.0


@final
class NodeTracer(Tracer):
    """For the thread of the node's loop only, except ``flush`` and ``close``, which block and belong on another
    thread."""

    def __init__(self, sampler: Sampler, thread: ExportThread) -> None:
        super().__init__()
        self.enabled = True
        self._sampler = sampler
        self._exporter = thread

    def considers(self, publish: Publish, trusted: bool) -> bool:
        picked = not trusted and self._sampler.picks()
        properties = publish.properties
        return picked or (properties is not None and bool(properties.user))

    def ingress(self, publish: Publish, vehicle: str, client: str, peer: Peer, trusted: bool = False) -> Span | None:
        properties = publish.properties
        caller = find(properties) if properties is not None and properties.user else None
        if not self._sampler.decide(caller, vehicle, trusted):
            return None
        parent_id = "" if caller is None else caller.span_id
        context = new_trace() if caller is None else child(caller)
        return LiveSpan(
            self._exporter.put, context, parent_id, PROCESS, publish.topic, vehicle, client, peer, CONSUMER, time_ns(),
            "", len(publish.payload),
        )  # fmt: skip

    def start(
        self,
        operation: str,
        parent: TraceContext,
        topic: str,
        vehicle: str,
        client: str,
        peer: Peer,
        kind: int,
        link: TraceContext | None = None,
    ) -> Span:
        if not parent.sampled:  # such a context may arrive over a link; it is passed on and not recorded
            return Span(parent)
        return LiveSpan(
            self._exporter.put, child(parent), parent.span_id, operation, topic, vehicle, client, peer, kind, time_ns(),
            "" if link is None else link.span_id,
        )  # fmt: skip

    def record(
        self, operation: str, parent: TraceContext, topic: str, vehicle: str, client: str, start_ns: int, end_ns: int
    ) -> TraceContext:
        if not parent.sampled:
            return parent
        context = child(parent)
        span = LiveSpan(
            self._exporter.put, context, parent.span_id, operation, topic, vehicle, client, None, INTERNAL, start_ns
        )
        span.end_at(end_ns)
        return context

    def status(self) -> SpansStatus:
        """The status for operators and metrics."""
        thread = self._exporter
        return SpansStatus(
            recorded=thread.recorded,
            exported=thread.exported,
            dropped=thread.dropped,
            queued=thread.queued,
            suppressed=self._sampler.suppressed,
            reachable=thread.reachable,
        )

    def flush(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Wait until every span so far is exported or dropped; return False at the timeout."""
        return self._exporter.flush(seconds)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Export the remaining spans within ``seconds`` and end the thread; later spans are dropped and counted."""
        self._exporter.close(seconds)


def open_tracer(
    endpoint: str,
    service: str,
    node: str,
    mesh: str,
    sample: float,
    topics: Template,
    watch: Iterable[str] = (),
    exporter: SpanExporter | None = None,
) -> NodeTracer:
    """The running tracer of a node.

    ``endpoint``: an OTLP/gRPC receiver, ``http://host:port`` in plain text or ``https://`` with TLS; ``service``: such
    as ``mesh-edge``; ``sample``: the ratio from 0.0 to 1.0; ``topics`` gives the vehicle of a topic; ``watch``: the
    vehicles whose every message is sampled. The SDK reads ``OTEL_EXPORTER_OTLP_HEADERS`` and similar variables. Nothing
    is sent before the first span, so an unavailable endpoint is not an error.
    """
    sampler = Sampler(sample, watch)
    if exporter is None:
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)
    convention = Convention(resource(service, node, mesh), topics)
    thread = ExportThread(exporter, convention.readable, endpoint)
    thread.start()
    return NodeTracer(sampler, thread)
