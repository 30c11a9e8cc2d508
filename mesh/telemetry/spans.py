"""A span of a sampled message, from its start until it is exported.

It knows plain values only; ``convention`` converts them for the exporter, so that the loop creates two small objects
and the export thread does the rest. What always holds: a span is passed to the exporter once, when it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from random import getrandbits
from time import time_ns
from typing import final

from mesh.broker.peer import Peer
from mesh.session.span import Span
from mesh.wire.tracecontext import SAMPLED, TraceContext


@final
class LiveSpan(Span):
    """Times are nanoseconds since 1970. ``parent_id`` is 16 hexadecimal digits, empty for the root of a trace;
    ``link_id``: a span of the same trace that this one is linked to, empty for none; ``peer``: the other end of the
    connection, ``None`` for a span within the node; ``size``: bytes, -1 if unknown.
    """

    __slots__ = (
        "_export", "client", "end_ns", "kind", "link_id", "operation", "parent_id", "peer", "reason", "size",
        "start_ns", "topic", "vehicle",
    )  # fmt: skip

    def __init__(
        self,
        export: Callable[[LiveSpan], None],
        context: TraceContext,
        parent_id: str,
        operation: str,
        topic: str,
        vehicle: str,
        client: str,
        peer: Peer | None,
        kind: int,
        start_ns: int,
        link_id: str = "",
        size: int = -1,
    ) -> None:
        super().__init__(context)
        self._export = export
        self.parent_id = parent_id
        self.operation = operation
        self.topic = topic
        self.vehicle = vehicle
        self.client = client
        self.peer = peer
        self.kind = kind
        self.start_ns = start_ns
        self.end_ns = 0
        self.link_id = link_id
        self.size = size
        self.reason = 0

    def end(self, reason: int = 0) -> None:
        """End the span now. A second call changes nothing, as the export thread may already have the span."""
        if not self.end_ns:
            self.end_at(time_ns(), reason)

    def end_at(self, end_ns: int, reason: int = 0) -> None:
        """End the span at a given time, but not before it began (the wall clock may have been set back)."""
        self.end_ns = max(end_ns, self.start_ns)
        self.reason = reason
        self._export(self)


def new_trace() -> TraceContext:
    """The context of the first span of a trace. All zeroes is the one invalid identifier (W3C Trace Context section
    3.2.2.3)."""
    return TraceContext(f"{getrandbits(128) or 1:032x}", f"{getrandbits(64) or 1:016x}", SAMPLED)


def child(parent: TraceContext) -> TraceContext:
    """The context of a further span of the same trace, sampled as the parent is."""
    return TraceContext(parent.trace_id, f"{getrandbits(64) or 1:016x}", parent.flags, parent.state)
