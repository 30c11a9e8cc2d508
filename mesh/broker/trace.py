"""What the engine asks of tracing, and the tracing that does nothing.

It knows when a span begins and what it is called: never how a span is made, kept or exported. The telemetry room
derives ``Tracer``. What always holds: no call here waits, raises or keeps more than one small object; a message that is
not sampled costs one call at its ingress and nothing after that.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

from mesh.session.span import Span
from mesh.wire.packets import Publish
from mesh.wire.tracecontext import TraceContext

# The kinds of a span, with the numbers of OpenTelemetry's protocol (opentelemetry/proto/trace/v1/trace.proto,
# Span.SpanKind).
INTERNAL: Final = 1  # work within one node: waiting
CLIENT: Final = 3  # a further hop: its context is not what the next receiver was created from
PRODUCER: Final = 4  # the send whose context the receiver gets
CONSUMER: Final = 5  # a message taken in

# The operations of the mesh, in the order in which a message meets them.
RECEIVE: Final = "receive"  # taken in by a node, from a client or over a link
WAIT: Final = "wait"  # in a session's queue, until the window, the credit or the client is there
RELAY: Final = "relay"  # through a front door, or from core to edge
SPOOL: Final = "spool"  # in the core, while the owner is away
SEND: Final = "send"  # out of the mesh, or on to the next node


@mypyc_attr(allow_interpreted_subclasses=True)
class Tracer:
    """The tracer that samples nothing. ``enabled`` is False where no call would ever give a span, so that none need
    be made.
    """

    __slots__ = ("enabled",)

    def __init__(self) -> None:
        self.enabled = False

    def considers(self, publish: Publish, trusted: bool) -> bool:
        """Whether a message that was just taken in might be sampled, so that its vehicle is worth finding out.

        Called once for each message that a node takes in. ``trusted``: it comes from a node of the mesh, which has
        decided already: no context means no.
        """
        return False

    def ingress(self, publish: Publish, vehicle: str, trusted: bool = False) -> Span | None:
        """Decide whether a message that is being considered is sampled; if so, start its ``receive`` span.

        ``vehicle`` is its sender or its addressee, empty if there is none. The span is a child of the context in the
        user properties, if that is valid. ``trusted`` as above.
        """
        return None

    def start(
        self,
        operation: str,
        parent: TraceContext,
        topic: str,
        vehicle: str,
        kind: int,
        link: TraceContext | None = None,
    ) -> Span:
        """Start a further span of a sampled message, which begins now.

        ``link``: for one of several deliveries of a message the context of the message, in the same trace. The span has
        a link to it: so the deliveries of one message are known as such (OpenTelemetry messaging conventions, "Trace
        structure"). It stays a child of ``parent``, because one trace shows every hop of a message.
        """
        return Span(parent)

    def record(
        self, operation: str, parent: TraceContext, topic: str, vehicle: str, start_ns: int, end_ns: int
    ) -> TraceContext:
        """Make an ``INTERNAL`` span after the fact, from wall-clock nanoseconds since 1970: for what the journal held
        meanwhile.
        """
        return parent
