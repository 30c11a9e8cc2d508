"""The receiving side of one MQTT session: what came in and is not answered yet.

It knows the order of the answers, the QoS 2 identifiers that are open and the topic aliases of the connection. It must
never know who the messages are for. What always holds: publishes are answered in the order in which they came
[MQTT-4.6.0-2], each after everything that its receipt waits for; an identifier of QoS 2 that was accepted is not
delivered again before its PUBREL [MQTT-4.3.3-10].
"""

from __future__ import annotations

from typing import final

from mesh.session.fifo import Fifo
from mesh.session.span import Span
from mesh.wire.reasons import NO_MATCHING_SUBSCRIBERS, SUCCESS, UNSPECIFIED_ERROR, is_error


class Publisher:
    """The one that published, and is to be answered: a client's connection, or a link. Rooms above derive it."""

    __slots__ = ()


@final
class Receipt:
    """The answer that one PUBLISH of QoS 1 or 2 is waiting for.

    It may leave when the journal has reached ``position`` and ``pending`` parties have answered. ``reason`` is the code
    that the publisher gets; an error outweighs a success, and a success outweighs "no matching subscribers".
    """

    __slots__ = ("closed", "holder", "packet_id", "pending", "position", "qos", "reason", "since", "span")

    def __init__(self, packet_id: int, qos: int, holder: Publisher) -> None:
        self.packet_id = packet_id
        self.qos = qos
        self.holder = holder
        self.pending = 0
        self.position = 0
        self.reason = NO_MATCHING_SUBSCRIBERS
        self.closed = False  # the connection is gone: nobody is answered
        self.since = 0.0  # when it came, in seconds since 1970, if the time to its answer is measured
        self.span: Span | None = None  # of a sampled message, from its arrival to this answer

    def note(self, reason: int) -> None:
        """One party's answer."""
        if is_error(reason) or (reason == SUCCESS and not is_error(self.reason)):
            self.reason = reason

    def end_span(self) -> None:
        """The message was taken in, and its publisher is being told."""
        span = self.span
        if span is not None:
            span.end(self.reason)

    def close(self) -> None:
        """The connection is gone: the publisher is not answered."""
        self.closed = True
        if self.span is not None:
            self.span.end(UNSPECIFIED_ERROR)

    def ready(self, durable: int) -> bool:
        """Whether the answer may leave."""
        return self.pending == 0 and self.position <= durable


@final
class Inbound:
    """Receipts of one connection in their order, the topic aliases it has set up, and in ``_open`` the QoS 2 exchanges
    that are between PUBREC and PUBREL."""

    __slots__ = ("_open", "alias_maximum", "aliases", "receipts")

    def __init__(self, alias_maximum: int) -> None:
        self.alias_maximum = alias_maximum
        self.aliases: dict[int, str] | None = None
        self.receipts: Fifo[Receipt] = Fifo()
        self._open: set[int] | None = None

    def unanswered(self) -> int:
        """How many publishes count against the receive maximum: those without PUBACK, or without PUBREC or PUBREL
        (MQTT 5.0 section 4.9)."""
        return len(self.receipts) + (0 if self._open is None else len(self._open))

    def opened(self, packet_id: int) -> None:
        """PUBREC is on its way."""
        if self._open is None:
            self._open = set()
        self._open.add(packet_id)

    def is_open(self, packet_id: int) -> bool:
        """Whether an exchange is between PUBREC and PUBREL."""
        return self._open is not None and packet_id in self._open

    def closed(self, packet_id: int) -> None:
        """PUBREL came."""
        if self._open is not None:
            self._open.discard(packet_id)

    def resolve(self, topic: str, alias: int) -> str | None:
        """The topic that a PUBLISH with a topic alias means; ``None`` if the alias is invalid [MQTT-3.3.2-8] or
        unknown.
        """
        if alias == 0 or alias > self.alias_maximum:
            return None
        if topic:
            if self.aliases is None:
                self.aliases = {}
            self.aliases[alias] = topic
            return topic
        return None if self.aliases is None else self.aliases.get(alias)

    def settled(self, durable: int) -> Receipt | None:
        """Take out the oldest receipt if its answer may leave."""
        receipts = self.receipts
        if receipts and receipts.first().ready(durable):
            return receipts.popleft()
        return None
