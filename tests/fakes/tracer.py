"""A tracer that samples every message and keeps its spans."""

from __future__ import annotations

from mesh.broker.peer import NOWHERE, Peer
from mesh.broker.trace import CONSUMER, INTERNAL, PROCESS, Tracer
from mesh.session.span import Span
from mesh.telemetry.spans import child, new_trace
from mesh.wire.packets import Publish
from mesh.wire.tracecontext import TraceContext


class KeptSpan(Span):
    """A span with the arguments of its start."""

    def __init__(
        self,
        operation: str,
        context: TraceContext,
        parent: TraceContext | None,
        topic: str,
        vehicle: str,
        client: str,
        peer: Peer,
        kind: int,
        link: TraceContext | None,
    ) -> None:
        super().__init__(context)
        self.operation = operation
        self.parent = parent
        self.topic = topic
        self.vehicle = vehicle
        self.client = client
        self.peer = peer
        self.kind = kind
        self.link = link
        self.reasons: list[int] = []  # one for each call of ``end``

    def end(self, reason: int = 0) -> None:
        self.reasons.append(reason)


class KeepingTracer(Tracer):
    """``spans`` holds the spans of all messages in the order of their starts."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.spans: list[KeptSpan] = []

    def considers(self, publish: Publish, trusted: bool) -> bool:
        return True

    def ingress(self, publish: Publish, vehicle: str, client: str, peer: Peer, trusted: bool = False) -> Span | None:
        topic = publish.topic
        return self._keep(KeptSpan(PROCESS, new_trace(), None, topic, vehicle, client, peer, CONSUMER, None))

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
        return self._keep(KeptSpan(operation, child(parent), parent, topic, vehicle, client, peer, kind, link))

    def record(
        self, operation: str, parent: TraceContext, topic: str, vehicle: str, client: str, start_ns: int, end_ns: int
    ) -> TraceContext:
        span = KeptSpan(operation, child(parent), parent, topic, vehicle, client, NOWHERE, INTERNAL, None)
        return self._keep(span).context

    def _keep(self, span: KeptSpan) -> KeptSpan:
        self.spans.append(span)
        return span

    def of(self, operation: str) -> list[KeptSpan]:
        return [span for span in self.spans if span.operation == operation]
