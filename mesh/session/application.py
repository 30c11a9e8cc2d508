"""What a client's session asks of the program that uses it.

Base classes, one for each subject, for the reason that ``store.py`` gives. Positions are those of the program's
journal: what bears one waits until the journal is durable up to it. A program without a journal uses 0 everywhere.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.session.outbound import Delivery
from mesh.wire.packets import Publish
from mesh.wire.tracecontext import TraceContext


@mypyc_attr(allow_interpreted_subclasses=True)
class ClientEvents:
    """The life of the connection."""

    def accepted(self, session_present: bool) -> None:
        """The session is up. Without ``session_present`` the server has no subscription of this client."""
        raise NotImplementedError

    def closing(self, why: str) -> None:
        """This side has ended the connection: write ``ClientSession.output``, then close the socket. ``why`` says what
        the server did, without a subject: "is silent"."""
        raise NotImplementedError

    def handled(self) -> None:
        """A packet was handled and nothing is half done."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Sender:
    """Owns the deliveries in ``ClientSession.outbound``."""

    def load(self, delivery: Delivery) -> Message:
        """The message of a delivery that is sent now."""
        raise NotImplementedError

    def context(self, delivery: Delivery, message: Message, now: float) -> TraceContext | None:
        """The trace context that a sampled message is sent with; ``now`` in seconds since 1970."""
        raise NotImplementedError

    def released(self, delivery: Delivery) -> None:
        """PUBREC came: set ``delivery.state`` to RELEASED, keep that, and set ``position`` accordingly."""
        raise NotImplementedError

    def finished(self, delivery: Delivery, reason: int) -> None:
        """The server has the message, or refused it with ``reason``; PACKET_TOO_LARGE: it was not sent at all, because
        the server takes no packet of that size."""
        raise NotImplementedError

    def expired(self, delivery: Delivery) -> None:
        """The delivery was due, but is not sent, because its message has expired."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Receiver:
    """Takes what the server sends."""

    def take(self, packet: Publish, receipt: Receipt | None) -> int:
        """A message, with its receipt unless it is of QoS 0; returns the reason code for the server."""
        raise NotImplementedError

    def keep(self, packet_id: int) -> int:
        """A QoS 2 message was taken: keep its packet identifier until ``forget``. Returns the journal position at which
        it is durable; no two identifiers have the same unless it is 0."""
        raise NotImplementedError

    def forget(self, position: int) -> int:
        """Let go of the identifier that was kept at ``position``; 0: of none. Returns the journal position at which
        this is durable, and every earlier ``forget`` too."""
        raise NotImplementedError
