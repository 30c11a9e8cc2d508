"""The broker's interface to tracing, and a tracer that does nothing.

It knows when a span begins and what it is called: never how a span is made, kept or exported. The telemetry room
derives ``Tracer``. What always holds: no call here waits, raises or keeps more than one small object; a message that is
not sampled costs one call at its ingress and nothing after that.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

from mesh.broker.peer import Peer
from mesh.session.span import Span
from mesh.wire.packets import Publish
from mesh.wire.tracecontext import TraceContext

# The kinds of a span, with the numbers of OpenTelemetry's protocol (opentelemetry/proto/trace/v1/trace.proto,
# Span.SpanKind).
INTERNAL: Final = 1  # work within one node: waiting
CLIENT: Final = 3  # a message passed on, and with it the context of an earlier span
PRODUCER: Final = 4  # a message sent with the context of this span
CONSUMER: Final = 5  # a message received

# The operations of the mesh, in the order in which a message meets them.
PROCESS: Final = "process"  # received by a node, from a client or over a link
SPOOL: Final = "spool"  # in the core, while the owner is disconnected
RELAY: Final = "relay"  # from core to edge, or through a front door
WAIT: Final = "wait"  # in a session's queue, until the window, the credit or the client allows the send
SEND: Final = "send"  # to a session's client: out of the mesh, or on to the next node


@mypyc_attr(allow_interpreted_subclasses=True)
class Tracer:
    """The tracer that samples nothing. ``enabled`` is False if no call ever gives a span, so that the caller can skip
    the calls.
    """

    __slots__ = ("enabled",)

    def __init__(self) -> None:
        self.enabled = False

    def considers(self, publish: Publish, trusted: bool) -> bool:
        """Whether a received message may be sampled, so that the caller must find its vehicle.

        Called once for each message that a node receives. ``trusted``: it comes from a node of the mesh, which has
        decided already: no context means no.
        """
        return False

    def ingress(self, publish: Publish, vehicle: str, client: str, peer: Peer, trusted: bool = False) -> Span | None:
        """Decide whether a message is sampled; if so, start its ``process`` span.

        ``vehicle`` is its sender or its receiver, empty if there is none; ``client`` the MQTT client identifier of
        the connection that it came by, ``peer`` the other end of that connection. The span is a child of the context
        in the user properties, if that is valid. ``trusted`` as above.
        """
        return None

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
        """Start a further span of a sampled message, which begins now. ``client`` and ``peer`` are those of the
        connection that the message leaves by; ``vehicle`` may be empty if the topic names it.

        ``link``: for one of several deliveries of a message, the context of the ``process`` span, so that a trace
        page can show that it was one message (OpenTelemetry messaging conventions, "Trace structure").
        """
        return Span(parent)

    def record(
        self, operation: str, parent: TraceContext, topic: str, vehicle: str, client: str, start_ns: int, end_ns: int
    ) -> TraceContext:
        """Make an ``INTERNAL`` span that has ended, from wall-clock nanoseconds since 1970: for the time that a message
        waited in the journal.
        """
        return parent
