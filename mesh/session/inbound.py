"""The receiving side of one MQTT session: the publishes that are not answered yet.

It knows the order of the answers, the open QoS 2 identifiers and the topic aliases of the connection. It must never
know the receivers of the messages. What always holds: publishes are answered in the order of their arrival
[MQTT-4.6.0-2], each after everything that its receipt waits for; a message with an accepted QoS 2 identifier is not
delivered again before the PUBREL [MQTT-4.3.3-10].
"""

from __future__ import annotations

from typing import final

from mesh.session.fifo import Fifo
from mesh.session.span import Span
from mesh.wire.reasons import NO_MATCHING_SUBSCRIBERS, SUCCESS, UNSPECIFIED_ERROR, is_error


class Publisher:
    """The sender of a PUBLISH, which gets the answer: a client's connection, or a link. Rooms above derive it."""

    __slots__ = ()


@final
class Receipt:
    """The pending answer to one PUBLISH of QoS 1 or 2.

    It may be sent when the journal is durable up to ``position`` and ``pending`` is 0: each party that still has to
    answer counts one. ``reason`` is the code for the publisher; an error overrides a success, and a success overrides
    "no matching subscribers".
    """

    __slots__ = ("closed", "holder", "packet_id", "pending", "position", "qos", "reason", "since", "span", "unplaced")

    def __init__(self, packet_id: int, qos: int, holder: Publisher) -> None:
        self.packet_id = packet_id
        self.qos = qos
        self.holder = holder
        self.pending = 0
        self.position = 0
        self.reason = NO_MATCHING_SUBSCRIBERS
        self.closed = False  # the connection is closed: no answer is sent
        self.unplaced = 0  # parts of this program that have the message in memory only, until it is where it belongs
        self.since = 0.0  # arrival in seconds since 1970, if the time to the answer is measured
        self.span: Span | None = None  # of a sampled message: from its arrival to this answer

    def note(self, reason: int) -> None:
        """Add the answer of one party."""
        if is_error(reason) or (reason == SUCCESS and not is_error(self.reason)):
            self.reason = reason

    def end_span(self) -> None:
        """End the span: the publisher gets its answer now."""
        span = self.span
        if span is not None:
            span.end(self.reason)

    def close(self) -> None:
        """The connection is closed: the publisher gets no answer."""
        self.closed = True
        if self.span is not None:
            self.span.end(UNSPECIFIED_ERROR)

    def ready(self, durable: int) -> bool:
        """Whether the answer may be sent."""
        return self.pending == 0 and self.position <= durable


@final
class Inbound:
    """The receipts of one connection in order, its topic aliases, and in ``_open`` the QoS 2 exchanges between PUBREC
    and PUBREL."""

    __slots__ = ("_open", "alias_maximum", "aliases", "receipts")

    def __init__(self, alias_maximum: int) -> None:
        self.alias_maximum = alias_maximum
        self.aliases: dict[int, str] | None = None
        self.receipts: Fifo[Receipt] = Fifo()
        self._open: set[int] | None = None

    def unanswered(self) -> int:
        """How many publishes count against the receive maximum: QoS 1 before PUBACK, QoS 2 before PUBREL or a PUBREC
        with an error (MQTT 5.0 section 4.9)."""
        return len(self.receipts) + (0 if self._open is None else len(self._open))

    def opened(self, packet_id: int) -> None:
        """PUBREC is sent."""
        if self._open is None:
            self._open = set()
        self._open.add(packet_id)

    def is_open(self, packet_id: int) -> bool:
        """Whether an exchange is between PUBREC and PUBREL."""
        return self._open is not None and packet_id in self._open

    def closed(self, packet_id: int) -> None:
        """PUBREL was received."""
        if self._open is not None:
            self._open.discard(packet_id)

    def resolve(self, topic: str, alias: int) -> str | None:
        """The topic of a PUBLISH with a topic alias; ``None`` if the alias is invalid [MQTT-3.3.2-8] or unknown."""
        if alias == 0 or alias > self.alias_maximum:
            return None
        if topic:
            if self.aliases is None:
                self.aliases = {}
            self.aliases[alias] = topic
            return topic
        return None if self.aliases is None else self.aliases.get(alias)

    def settled(self, durable: int) -> Receipt | None:
        """Take out the oldest receipt if its answer may be sent."""
        receipts = self.receipts
        if receipts and receipts.first().ready(durable):
            return receipts.popleft()
        return None
