"""The interface between a client's session and the program that uses it.

One base class for each subject, for the reason given in ``store.py``. Positions are those of the program's journal: a
delivery, request or answer with a position waits until the journal is durable up to it. A program without a journal
uses 0 everywhere.
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
    """The events of the connection."""

    def accepted(self, session_present: bool) -> None:
        """The session is up. Without ``session_present`` the server has no subscription of this client."""
        raise NotImplementedError

    def closing(self, why: str) -> None:
        """This side ends the connection: write ``ClientSession.output``, then close the socket. ``why`` says what the
        server did, without a subject: "is silent"."""
        raise NotImplementedError

    def handled(self) -> None:
        """A packet was handled completely."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Sender:
    """Owns the deliveries in ``ClientSession.outbound``. While ``withholding`` is true, ``withholds`` is asked about
    each delivery that is about to be sent."""

    withholding: bool = False

    def withholds(self, delivery: Delivery, message: Message) -> bool:
        """Whether a delivery of QoS 1 or 2 is not sent now. If so, the sender has taken it; it may push it again."""
        return False

    def load(self, delivery: Delivery) -> Message:
        """The message of a delivery that is about to be sent."""
        raise NotImplementedError

    def context(self, delivery: Delivery, message: Message, now: float) -> TraceContext | None:
        """The trace context that a sampled message is sent with; ``now`` in seconds since 1970."""
        raise NotImplementedError

    def released(self, delivery: Delivery) -> None:
        """PUBREC was received: set ``delivery.state`` to RELEASED, keep that durably, and set ``position`` to it."""
        raise NotImplementedError

    def finished(self, delivery: Delivery, reason: int) -> None:
        """The server has the message, or refused it with ``reason``. PACKET_TOO_LARGE: it was not sent, because it
        exceeds the server's maximum packet size."""
        raise NotImplementedError

    def expired(self, delivery: Delivery) -> None:
        """The delivery is not sent, because its message has expired."""
        raise NotImplementedError


@mypyc_attr(allow_interpreted_subclasses=True)
class Receiver:
    """Takes the messages that the server publishes."""

    def take(self, packet: Publish, receipt: Receipt | None) -> int:
        """Take a message, with its receipt (``None`` for QoS 0); returns the reason code for the server."""
        raise NotImplementedError

    def keep(self, packet_id: int) -> int:
        """A QoS 2 message was taken: keep its packet identifier until ``forget``. Returns the journal position at which
        it is durable; unless it is 0, each identifier has its own."""
        raise NotImplementedError

    def forget(self, position: int) -> int:
        """Delete the identifier that was kept at ``position``; 0: delete none. Returns the journal position at which
        this and every earlier ``forget`` is durable."""
        raise NotImplementedError
