"""The tracer of a node: implements the broker's ``Tracer`` with sampling, spans and their export.

It knows how these three work together. It must never wait or raise on the loop. What always holds: each node has its
own tracer and there is no global one, so several nodes can run in one process; a tracer stays the same when what it
samples, and where it sends spans, changes; the libraries of exporters are loaded with the first receiver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from time import time_ns
from typing import Final, NamedTuple, final

from mesh.broker.peer import Peer
from mesh.broker.trace import CONSUMER, INTERNAL, PROCESS, Tracer
from mesh.policy.template import Template
from mesh.session.span import Span
from mesh.telemetry.export import ExportThread, Receiver
from mesh.telemetry.sampling import Sampler
from mesh.telemetry.spans import LiveSpan, child, new_trace
from mesh.telemetry.status import SpansStatus
from mesh.wire.packets import Publish
from mesh.wire.tracecontext import TraceContext, find

# A running endpoint answers in milliseconds. Within five seconds the exporter tries three times.
EXPORT_SECONDS: Final = 5.0
# The controller and the operator wait for a node that stops.
CLOSE_SECONDS: Final = 2.0
# For the answer of an endpoint that is no longer used: a new endpoint should get spans within two seconds.
RETIRE_SECONDS: Final = 1.0


class Source(NamedTuple):
    """Where spans come from: the kind of node (``mesh-edge``), its name, and the mesh's."""

    service: str
    node: str
    mesh: str


@final
class NodeTracer(Tracer):
    """For the thread of the node's loop only, except ``flush`` and ``close``, which block and belong on another
    thread."""

    def __init__(self, sampler: Sampler, source: Source, topics: Template) -> None:
        """It sends nothing until ``send_to``."""
        super().__init__()
        self._sampler = sampler
        self._source = source
        self._topics = topics
        self._exporter: ExportThread | None = None

    def sample(self, ratio: float, watch: Iterable[str]) -> None:
        """Sample by another ratio and another watch list from now on."""
        self._sampler.take(ratio, watch)

    def send_to(self, receiver: Receiver | None) -> Callable[[], None]:
        """Send spans to another receiver from now on, also those that wait; ``None``: record none.

        Returns what ends the old one: it blocks and belongs on another thread. Without a new receiver, it exports what
        waits before.
        """
        thread = self._exporter
        self.enabled = receiver is not None
        if receiver is None:
            self._exporter = None
            return _nothing if thread is None else partial(thread.close, CLOSE_SECONDS)
        if thread is None:
            from mesh.telemetry.convention import Convention, resource  # its libraries are here, with the receiver

            convention = Convention(resource(*self._source), self._topics)
            thread = self._exporter = ExportThread(receiver, convention.readable)
            thread.start()
            return _nothing
        before = thread.move(receiver)
        return partial(thread.retire, before, RETIRE_SECONDS)

    def considers(self, publish: Publish, trusted: bool) -> bool:
        if not self.enabled:
            return False
        picked = not trusted and self._sampler.picks()
        properties = publish.properties
        return picked or (properties is not None and bool(properties.user))

    def ingress(self, publish: Publish, vehicle: str, client: str, peer: Peer, trusted: bool = False) -> Span | None:
        exporter = self._exporter
        if exporter is None:
            return None
        properties = publish.properties
        caller = find(properties) if properties is not None and properties.user else None
        if not self._sampler.decide(caller, vehicle, trusted):
            return None
        parent_id = "" if caller is None else caller.span_id
        context = new_trace() if caller is None else child(caller)
        return LiveSpan(
            exporter.put, context, parent_id, PROCESS, publish.topic, vehicle, client, peer, CONSUMER, time_ns(),
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
        exporter = self._exporter
        if exporter is None or not parent.sampled:  # such a context may arrive over a link; it is only passed on
            return Span(parent)
        return LiveSpan(
            exporter.put, child(parent), parent.span_id, operation, topic, vehicle, client, peer, kind, time_ns(),
            "" if link is None else link.span_id,
        )  # fmt: skip

    def record(
        self, operation: str, parent: TraceContext, topic: str, vehicle: str, client: str, start_ns: int, end_ns: int
    ) -> TraceContext:
        exporter = self._exporter
        if exporter is None or not parent.sampled:
            return parent
        context = child(parent)
        span = LiveSpan(
            exporter.put, context, parent.span_id, operation, topic, vehicle, client, None, INTERNAL, start_ns
        )
        span.end_at(end_ns)
        return context

    def status(self) -> SpansStatus | None:
        """The status for operators and metrics; ``None`` without a receiver."""
        thread = self._exporter
        if thread is None:
            return None
        return SpansStatus(
            recorded=thread.recorded,
            exported=thread.exported,
            dropped=thread.dropped,
            queued=thread.queued,
            suppressed=self._sampler.suppressed,
            reachable=thread.reachable,
        )

    def in_force(self) -> dict[str, object]:
        """What is sampled, and where spans go."""
        thread = self._exporter
        return {**self._sampler.in_force(), "otlp": None if thread is None else thread.endpoint}

    def flush(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Wait until every span so far is exported or dropped; return False at the timeout."""
        return self._exporter is None or self._exporter.flush(seconds)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Export the remaining spans within ``seconds`` and end the thread; later spans are dropped and counted."""
        if self._exporter is not None:
            self._exporter.close(seconds)


def _nothing() -> None:
    """Nothing has to be ended."""


def receiver_at(endpoint: str) -> Receiver:
    """An OTLP/gRPC receiver, ``http://host:port`` in plain text or ``https://`` with TLS. To load its libraries takes a
    fifth of a second, so a node that serves calls this in a thread.

    The SDK reads ``OTEL_EXPORTER_OTLP_HEADERS`` and similar variables. Nothing is sent before the first span, so an
    unavailable endpoint is not an error.
    """
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return Receiver(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS), endpoint)


def open_tracer(
    receiver: Receiver | None,
    service: str,
    node: str,
    mesh: str,
    sample: float,
    topics: Template,
    watch: Iterable[str] = (),
) -> NodeTracer:
    """The tracer of a node. ``receiver``: ``None`` for a tracer that records nothing; ``service``: such as
    ``mesh-edge``; ``sample``: the ratio from 0.0 to 1.0; ``topics`` gives the vehicle of a topic; ``watch``: the
    vehicles whose every message is sampled.
    """
    tracer = NodeTracer(Sampler(sample, watch), Source(service, node, mesh), topics)
    tracer.send_to(receiver)
    return tracer
