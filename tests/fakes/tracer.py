"""A tracer that samples every message and keeps its spans."""

from __future__ import annotations

from mesh.broker.trace import INTERNAL, RECEIVE, Tracer
from mesh.session.span import Span
from mesh.telemetry.spans import child, new_trace
from mesh.wire.packets import Publish
from mesh.wire.tracecontext import TraceContext


class KeptSpan(Span):
    """A span, and what was said when it was started."""

    def __init__(
        self, context: TraceContext, operation: str, parent: TraceContext | None, link: TraceContext | None, kind: int
    ) -> None:
        super().__init__(context)
        self.operation = operation
        self.parent = parent
        self.link = link
        self.kind = kind
        self.reasons: list[int] = []  # of each time that it was ended

    def end(self, reason: int = 0) -> None:
        self.reasons.append(reason)


class KeepingTracer(Tracer):
    """``spans`` are those of all messages, in the order in which they were started."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.spans: list[KeptSpan] = []

    def considers(self, publish: Publish, trusted: bool) -> bool:
        return True

    def ingress(self, publish: Publish, vehicle: str, trusted: bool = False) -> Span | None:
        return self._keep(KeptSpan(new_trace(), RECEIVE, None, None, 0))

    def start(
        self,
        operation: str,
        parent: TraceContext,
        topic: str,
        vehicle: str,
        kind: int,
        link: TraceContext | None = None,
    ) -> Span:
        return self._keep(KeptSpan(child(parent), operation, parent, link, kind))

    def record(
        self, operation: str, parent: TraceContext, topic: str, vehicle: str, start_ns: int, end_ns: int
    ) -> TraceContext:
        return self._keep(KeptSpan(child(parent), operation, parent, None, INTERNAL)).context

    def _keep(self, span: KeptSpan) -> KeptSpan:
        self.spans.append(span)
        return span

    def of(self, operation: str) -> list[KeptSpan]:
        return [span for span in self.spans if span.operation == operation]
