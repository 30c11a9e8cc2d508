"""The sending side of one MQTT session: what waits, what is with the receiver, and what may go next.

A server's session to a subscriber and a core's session to an edge are the same thing, and both use this class. It knows
order, window and packet identifiers; it must never know sockets, subscriptions, or how a delivery is kept on disk.

What always holds:

* Deliveries of QoS 1 and 2 are numbered in the order in which they were queued, and are sent in that order
  [MQTT-4.6.0-6].
* The packet identifier of delivery *n* is ``n % 65535 + 1``: it is the same after a crash [MQTT-4.4.0-1], without
  having been written anywhere but in the delivery's own record. No identifier is used twice at a time, because a
  delivery waits while its identifier is still taken.
* At most ``window`` deliveries are unacknowledged (the receiver's receive maximum [MQTT-3.3.4-9]).
* A delivery is not sent before the journal has reached its ``position``.
"""

from __future__ import annotations

from typing import Final, final

from mesh.session.fifo import Fifo
from mesh.session.inbound import Receipt
from mesh.session.message import NEVER, Message

# States of a delivery.
QUEUED: Final = 0
SENT: Final = 1
RELEASED: Final = 2  # QoS 2: PUBREC came; PUBREL is due until PUBCOMP comes
WITHDRAWN: Final = 3  # another receiver has it now; this one has a copy and may still acknowledge it

_IDENTIFIERS: Final = 65_535


def packet_id_of(number: int) -> int:
    """The packet identifier of delivery ``number`` of a session."""
    return number % _IDENTIFIERS + 1


@final
class Delivery:
    """One message for one receiver. ``message`` is ``None`` while the journal alone holds it (then ``item`` says
    where).

    ``since`` is when it was queued (seconds since 1970); ``number`` is 0 for QoS 0, which has no identifier; ``group``
    is the ``$share/…`` that it came by, if it did.
    """

    __slots__ = (
        "body", "dup", "expires", "group", "item", "message", "number", "position", "qos", "receipt", "retain",
        "since", "size", "started", "state", "subscription_ids",
    )  # fmt: skip

    def __init__(
        self,
        message: Message | None,
        qos: int,
        retain: bool,
        subscription_ids: tuple[int, ...],
        since: float,
        expires: float = NEVER,
        size: int = 0,
    ) -> None:
        self.message = message
        self.qos = qos
        self.retain = retain
        self.subscription_ids = subscription_ids
        self.since = since
        self.expires = expires
        self.size = size
        self.number = 0
        self.group = ""
        self.state = QUEUED
        self.dup = False
        self.item = 0  # journal item of this delivery; 0: not journalled
        self.body = 0  # journal item of a body shared with other sessions; 0: the body is in ``item``
        self.position = 0  # journal position that must be durable before it is sent
        self.receipt: Receipt | None = None  # who waits for the receiver's acknowledgement (tier link)
        self.started = 0.0  # when it was written towards the receiver


@final
class Depth:
    """How many deliveries wait or are in flight in many sessions together. It is counted, because adding up a hundred
    thousand sessions, all of them in cold memory, would stop a node for tens of milliseconds at each look."""

    __slots__ = ("messages",)

    def __init__(self) -> None:
        self.messages = 0


@final
class Outbound:
    """Queue, window and identifiers of one session, which is counted in ``depth``. All times are seconds since 1970."""

    __slots__ = (
        "bytes", "depth", "finished", "in_flight", "next_number", "restored", "resuming", "sent", "soonest",
        "waiting", "window",
    )  # fmt: skip

    def __init__(self, depth: Depth, window: int = _IDENTIFIERS) -> None:
        self.depth = depth
        self.window = window
        self.waiting: Fifo[Delivery] = Fifo()
        self.in_flight: dict[int, Delivery] = {}
        self.next_number = 0
        self.sent = 0  # the number after the highest that was ever sent
        self.finished = 0  # deliveries that the receiver has acknowledged
        self.bytes = 0
        self.soonest = NEVER  # nothing that waits expires before
        self.restored = False  # by recovery: it is not known what was sent
        self.resuming = False  # between ``attach`` and ``live``: acknowledgements may come for what still waits

    def __len__(self) -> int:
        return len(self.waiting) + len(self.in_flight)

    def number(self, delivery: Delivery) -> None:
        """Give a delivery of QoS 1 or 2 its place in the order."""
        delivery.number = self.next_number
        self.next_number += 1

    def push(self, delivery: Delivery) -> None:
        """Put a delivery at the end of the queue."""
        self.bytes += delivery.size
        self.depth.messages += 1
        self.waiting.append(delivery)
        if delivery.expires != NEVER:
            self._expires(delivery.expires)

    def _expires(self, moment: float) -> None:
        if self.soonest == NEVER or moment < self.soonest:
            self.soonest = moment

    def restore(self, delivery: Delivery) -> None:
        """Put back a delivery that the journal kept; they come in order. It may have been sent before."""
        if delivery.number >= self.next_number:
            self.next_number = delivery.number + 1
        self.bytes += delivery.size
        self.depth.messages += 1
        self.restored = True
        if delivery.state == RELEASED:
            self.in_flight[packet_id_of(delivery.number)] = delivery
        else:
            self.waiting.append(delivery)
            if delivery.expires != NEVER:
                self._expires(delivery.expires)

    def take(self, durable: int) -> Delivery | None:
        """The next delivery that may be sent now, given the journal's durable position; it is then in flight."""
        waiting = self.waiting
        if not waiting:
            return None
        delivery = waiting.first()
        if delivery.position > durable:
            return None
        if delivery.qos == 0:
            waiting.popleft()
            self.bytes -= delivery.size
            self.depth.messages -= 1
            return delivery
        packet_id = delivery.number % _IDENTIFIERS + 1
        if len(self.in_flight) >= self.window or packet_id in self.in_flight:
            return None
        waiting.popleft()
        delivery.state = SENT
        if delivery.number >= self.sent:
            self.sent = delivery.number + 1
        self.in_flight[packet_id] = delivery
        return delivery

    def drop_head(self) -> Delivery | None:
        """Take out the oldest delivery that was not sent yet, to make room."""
        if not self.waiting:
            return None
        delivery = self.waiting.popleft()
        self.bytes -= delivery.size
        self.depth.messages -= 1
        return delivery

    def take_expired(self, now: float) -> list[Delivery]:
        """Take out what has expired while it waited [MQTT-3.3.2-5]. It looks through the queue only if there is such a
        thing; and not in a replay, where some of it may be with the receiver."""
        found: list[Delivery] = []
        if self.soonest == NEVER or self.soonest > now or self.resuming:
            return found
        kept: Fifo[Delivery] = Fifo()
        self.soonest = NEVER
        for delivery in self.waiting:
            if delivery.expires != NEVER and delivery.expires <= now:
                self._let_go(delivery)
                found.append(delivery)
            else:
                kept.append(delivery)
                if delivery.expires != NEVER:
                    self._expires(delivery.expires)
        self.waiting = kept
        return found

    def discard(self) -> None:
        """The session is over, with all that it held."""
        self.depth.messages -= len(self)
        self.waiting.clear()
        self.in_flight.clear()
        self.bytes = 0

    def finish(self, packet_id: int) -> Delivery | None:
        """The receiver has it: PUBACK, PUBCOMP, or PUBREC with an error. ``None`` if nothing bears the identifier."""
        delivery = self.in_flight.pop(packet_id, None)
        if delivery is None:
            delivery = self._out_of_queue(packet_id)
            if delivery is None:
                return None
        self.bytes -= delivery.size
        self.depth.messages -= 1
        self.finished += 1
        return delivery

    def movable(self, groups: set[str]) -> list[Delivery]:
        """What came by one of the shared groups and may go to another member, in order: all that was not sent, and of
        QoS 1 also what was, for QoS 2 stays with whom it was sent to [MQTT-4.8.2-4]."""
        found = [one for one in self.in_flight.values() if one.group in groups and one.qos == 1 and one.state == SENT]
        found.sort(key=_by_number)
        return found + [one for one in self.waiting if one.group in groups and (one.qos == 1 or not one.dup)]

    def withdraw(self, moved: set[Delivery], connected: bool) -> None:
        """Take out what others got. A receiver that is ``connected`` keeps the places of what was sent to it until it
        acknowledges: they count against its receive maximum [MQTT-3.3.4-9]."""
        kept: Fifo[Delivery] = Fifo()
        for delivery in self.waiting:
            if delivery in moved:
                self._let_go(delivery)
            else:
                kept.append(delivery)
        self.waiting = kept
        for packet_id, delivery in list(self.in_flight.items()):
            if delivery in moved:
                if connected:
                    delivery.state = WITHDRAWN
                    delivery.message = None
                else:
                    del self.in_flight[packet_id]
                    self._let_go(delivery)

    def _let_go(self, delivery: Delivery) -> None:
        self.bytes -= delivery.size
        self.depth.messages -= 1

    def received(self, packet_id: int) -> Delivery | None:
        """PUBREC came: the delivery is released, or was already. ``None`` if nothing bears the identifier."""
        delivery = self.in_flight.get(packet_id)
        if delivery is None:
            delivery = self._out_of_queue(packet_id)
            if delivery is None:
                return None
            self.in_flight[packet_id] = delivery
        return delivery

    def _out_of_queue(self, packet_id: int) -> Delivery | None:
        """A restored delivery whose acknowledgement is replayed: the connection outlived the server that had sent it.

        Acknowledgements come in the order of the sending [MQTT-4.6.0-2], so the search ends at the head in all but odd
        cases.
        """
        if not self.resuming:
            return None
        for index, delivery in enumerate(self.waiting):
            if delivery.qos > 0 and packet_id_of(delivery.number) == packet_id:
                return self.waiting.take(index)
        return None

    def reconnect(self) -> list[Delivery]:
        """A new connection: what was with the receiver goes first, in order, with DUP [MQTT-3.3.1-1].

        Returns the released deliveries, whose PUBREL is due again [MQTT-4.4.0-1]. QoS 0 does not outlive a connection.
        """
        for delivery in self.in_flight.values():
            if delivery.state == SENT:
                delivery.dup = True
                delivery.expires = NEVER  # its delivery has begun, and is gone through with [MQTT-4.3.3-7]
        kept = [delivery for delivery in self.waiting if delivery.qos]
        self.bytes -= sum(delivery.size for delivery in self.waiting if delivery.qos == 0)
        self.depth.messages -= len(self.waiting) - len(kept)
        self.waiting = Fifo(kept)
        self.restored = False
        return self._requeue(set())

    def resume(self, unacknowledged: list[int]) -> list[Delivery]:
        """The connection outlived its link, or this process: ``unacknowledged`` identifiers are with the receiver.

        Those stay in flight and are not repeated, which MQTT allows on a new connection only [MQTT-4.4.0-1]. Whatever
        else was sent got lost on the way, and goes again as if for the first time. Returns the released deliveries,
        whose PUBREL is due again.
        """
        with_receiver = set(unacknowledged)
        if self.restored:
            self.restored = False
            self._adopt(with_receiver)
        return self._requeue(with_receiver)

    def _adopt(self, with_receiver: set[int]) -> None:
        """After a crash: put what the receiver has in flight again; the rest was not sent on this connection."""
        kept: Fifo[Delivery] = Fifo()
        for delivery in self.waiting:
            packet_id = packet_id_of(delivery.number)
            delivery.dup = False
            if packet_id in with_receiver and packet_id not in self.in_flight:
                delivery.state = SENT
                self.in_flight[packet_id] = delivery
            else:
                kept.append(delivery)
        self.waiting = kept

    def _requeue(self, with_receiver: set[int]) -> list[Delivery]:
        """Put what is in flight and not ``with_receiver`` back in its place; returns the released deliveries."""
        self.resuming = False
        again: list[Delivery] = []
        released: list[Delivery] = []
        flying: dict[int, Delivery] = {}
        for packet_id, delivery in self.in_flight.items():
            if delivery.state == RELEASED:
                released.append(delivery)
            if delivery.state == RELEASED or packet_id in with_receiver:
                flying[packet_id] = delivery
            elif delivery.state == WITHDRAWN:
                self._let_go(delivery)
            else:
                delivery.state = QUEUED
                again.append(delivery)
                if delivery.expires != NEVER:
                    self._expires(delivery.expires)
        again.sort(key=_by_number)
        self.waiting.prepend(again)
        self.in_flight = flying
        return released


def _by_number(delivery: Delivery) -> int:
    return delivery.number
