"""The sending side of one MQTT session: what waits, what is in flight, and what may be sent next.

A server's session with a subscriber and a core's session with an edge both use this class. It knows order, window and
packet identifiers; it must never know sockets, subscriptions, or how a delivery is kept on disk.

What always holds:

* Deliveries of QoS 1 and 2 are numbered in queue order, and are sent in that order [MQTT-4.6.0-6].
* The packet identifier of delivery *n* is ``n % 65535 + 1``. So it is the same after a crash [MQTT-4.4.0-1], and only
  the delivery's own record stores it. Two deliveries never use one identifier at a time, because a delivery waits while
  its identifier is in use.
* At most ``window`` deliveries are unacknowledged (the receiver's receive maximum [MQTT-3.3.4-9]).
* A delivery is not sent before the journal has reached its ``position``.
* Only an acknowledgement of its own exchange ends a delivery: PUBACK for QoS 1; for QoS 2 PUBREC with an error, or
  PUBCOMP after PUBREC.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import i64

from mesh.session.fifo import Fifo
from mesh.session.inbound import Receipt
from mesh.session.message import NEVER, Message
from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC

# States of a delivery.
QUEUED: Final = 0
SENT: Final = 1
RELEASED: Final = 2  # QoS 2: PUBREC was received; PUBREL is due until PUBCOMP
WITHDRAWN: Final = 3  # moved to another receiver; this one has a copy and may still acknowledge it

_IDENTIFIERS: Final = 65_535
_SEARCH: Final = 1024  # deliveries that one search for expired ones looks at: less than a tenth of a millisecond


def packet_id_of(number: int) -> int:
    """The packet identifier of delivery ``number`` of a session."""
    return number % _IDENTIFIERS + 1


@final
class Delivery:
    """One message for one receiver. ``message`` is ``None`` while only the journal holds it, as ``item``.

    ``since`` is when it was queued (seconds since 1970); ``number`` is 0 for QoS 0, which has no identifier; ``group``
    is the filter ``$share/…`` of a shared subscription, empty for none.
    """

    __slots__ = (
        "body", "dup", "expires", "group", "item", "loaded", "message", "number", "position", "qos", "receipt",
        "retain", "since", "size", "started", "state", "subscription_ids",
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
        self.loaded: i64 = 0  # bytes that it counts in ``Depth.loaded``
        self.position = 0  # the journal must be durable up to here before it is sent
        self.receipt: Receipt | None = None  # the answer that waits for the receiver's acknowledgement (tier link)
        self.started = 0.0  # when it was sent, in seconds since 1970


@final
class Depth:
    """How many deliveries wait or are in flight in all sessions together, and the bytes of those messages that are in
    memory, without bodies that sessions share. They are counters, because adding up a hundred thousand sessions, which
    are not in the CPU's cache, would block a node for tens of milliseconds each time."""

    __slots__ = ("loaded", "messages")

    def __init__(self) -> None:
        self.messages: i64 = 0  # native integers: each message changes all of these sums
        self.loaded: i64 = 0


class QueueBytes:
    """The bytes of the queues of all sessions of one identity. At ``limit`` the owner refuses further messages."""

    __slots__ = ("bytes", "limit")

    def __init__(self, limit: int = 1 << 62) -> None:
        self.bytes: i64 = 0
        self.limit: i64 = limit


@final
class Outbound:
    """Queue, window and identifiers of one session, counted in ``depth`` and ``share``. All times are seconds since
    1970."""

    __slots__ = (
        "_later", "_searched", "bytes", "depth", "finished", "in_flight", "next_number", "reserved", "restored",
        "resuming", "sent", "share", "soonest", "unreliable", "waiting", "window",
    )  # fmt: skip

    def __init__(self, depth: Depth, window: int = _IDENTIFIERS, share: QueueBytes | None = None) -> None:
        self.depth = depth
        self.share = share or QueueBytes()
        self.window = window
        self.waiting: Fifo[Delivery] = Fifo()
        self.in_flight: dict[int, Delivery] = {}
        self.next_number = 0
        self.reserved = 0  # lower numbers are never used again, also after a crash
        self.sent = 0  # one more than the highest number ever sent
        self.finished = 0  # how many deliveries the receiver has acknowledged
        self.bytes: i64 = 0
        self.soonest = NEVER  # no waiting delivery expires before
        self.unreliable = 0  # waiting deliveries of QoS 0
        self._searched = 0  # the place up to which the present search for expired ones has come
        self._later = NEVER  # the soonest expiry that it has passed
        self.restored = False  # by recovery: it is unknown which deliveries were sent
        self.resuming = False  # between ``attach`` and ``live``: waiting deliveries may be acknowledged

    def __len__(self) -> int:
        return len(self.waiting) + len(self.in_flight)

    def number(self, delivery: Delivery) -> None:
        """Give a delivery of QoS 1 or 2 its number."""
        delivery.number = self.next_number
        self.next_number += 1

    def push(self, delivery: Delivery) -> None:
        """Add a delivery at the end of the queue."""
        self._count(delivery)
        self.waiting.append(delivery)
        if delivery.qos == 0:
            self.unreliable += 1
        if delivery.expires != NEVER:
            self._note_expiry(delivery.expires)

    def join(self, share: QueueBytes) -> None:
        """Count the queue in ``share`` from now on; at recovery the owner is known later than the deliveries."""
        self.share.bytes -= self.bytes
        share.bytes += self.bytes
        self.share = share

    def unload(self, delivery: Delivery) -> None:
        """Keep the message of a counted delivery in the journal only."""
        self.depth.loaded -= delivery.loaded
        delivery.loaded = 0
        delivery.message = None

    def _count(self, delivery: Delivery) -> None:
        size: i64 = delivery.size
        depth = self.depth
        self.bytes += size
        self.share.bytes += size
        depth.messages += 1
        if delivery.message is not None and not delivery.body:
            delivery.loaded = size
            depth.loaded += size

    def _uncount(self, delivery: Delivery) -> None:
        size: i64 = delivery.size
        depth = self.depth
        self.bytes -= size
        self.share.bytes -= size
        depth.messages -= 1
        depth.loaded -= delivery.loaded
        delivery.loaded = 0
        if delivery.qos == 0:
            self.unreliable -= 1

    def _note_expiry(self, time: float) -> None:
        if self.soonest == NEVER or time < self.soonest:
            self.soonest = time

    def restore(self, delivery: Delivery) -> None:
        """Restore a delivery from the journal; call in order of their numbers. It may have been sent before."""
        if delivery.number >= self.next_number:
            self.next_number = delivery.number + 1
        self._count(delivery)
        self.restored = True
        if delivery.state == RELEASED:
            self.in_flight[packet_id_of(delivery.number)] = delivery
        else:
            self.waiting.append(delivery)
            if delivery.expires != NEVER:
                self._note_expiry(delivery.expires)

    def take(self, durable: int) -> Delivery | None:
        """Take the next delivery that may be sent at the journal's durable position; QoS 1 and 2 are then in flight."""
        waiting = self.waiting
        if not waiting:
            return None
        delivery = waiting.first()
        if delivery.position > durable:
            return None
        if delivery.qos == 0:
            waiting.popleft()
            self._uncount(delivery)
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

    def take_out(self, packet_id: int) -> None:
        """Take out a delivery of QoS 1 or 2 that ``take`` returned and that is not sent now."""
        delivery = self.in_flight.pop(packet_id)
        delivery.state = QUEUED
        self._uncount(delivery)

    def put_first(self, delivery: Delivery) -> None:
        """Add a delivery at the head of the queue, as the next to be sent."""
        self._count(delivery)
        self.waiting.prepend([delivery])
        if delivery.expires != NEVER:
            self._note_expiry(delivery.expires)

    def drop_head(self) -> Delivery | None:
        """Take out the oldest waiting delivery, to make room."""
        if not self.waiting:
            return None
        delivery = self.waiting.popleft()
        self._uncount(delivery)
        return delivery

    def take_expired(self, now: float) -> list[Delivery]:
        """Take out waiting deliveries that have expired [MQTT-3.3.2-5], and search the queue for them only if one has.
        A long queue is searched in portions, one in each call. Takes out none during a replay, when the receiver may
        have some of them."""
        found: list[Delivery] = []
        if self.soonest == NEVER or self.soonest > now or self.resuming:
            return found
        waiting = self.waiting
        if self._searched < waiting.begin():
            self._searched = waiting.begin()
            self._later = NEVER
        end = min(self._searched + _SEARCH, waiting.end())
        for place in range(self._searched, end):
            delivery = waiting.at(place)
            if delivery is None or delivery.expires == NEVER:
                continue
            if delivery.expires <= now:
                waiting.remove(place)
                self._uncount(delivery)
                found.append(delivery)
            elif self._later == NEVER or delivery.expires < self._later:
                self._later = delivery.expires
        self._searched = end
        if end >= waiting.end():
            self.soonest = self._later
            self._later = NEVER
            waiting.tidy()
            self._searched = waiting.begin()
        return found

    def drop_any(self) -> Delivery | None:
        """Take out a delivery, whether it waits or is in flight: the session has ended. ``None`` if there is none."""
        if self.waiting:
            return self.drop_head()
        if not self.in_flight:
            return None
        delivery = self.in_flight.popitem()[1]
        self._uncount(delivery)
        return delivery

    def finish(self, packet_id: int, type: int) -> Delivery | None:
        """Handle PUBACK, PUBCOMP, or PUBREC with an error. Returns the delivery, which has ended; ``None`` for an
        unknown identifier, and for a delivery that waits for another acknowledgement (see ``misfit``)."""
        delivery = self.in_flight.pop(packet_id, None)
        if delivery is None:
            delivery = self._take_from_queue(packet_id, type)
            if delivery is None:
                return None
        elif (type != PUBACK or delivery.qos != 1) and not _fits(delivery, type):
            self.in_flight[packet_id] = delivery  # a misfit is rare: look up once for each acknowledgement
            return None
        self._uncount(delivery)
        self.finished += 1
        return delivery

    def remove(self, delivery: Delivery) -> None:
        """End a delivery in flight that the receiver does not get, or need not answer."""
        del self.in_flight[packet_id_of(delivery.number)]
        self._uncount(delivery)
        self.finished += 1

    def misfit(self, packet_id: int) -> bool:
        """Whether an acknowledgement that ``finish`` or ``received`` has not accepted is an error of the receiver: a
        delivery with its identifier waits for another one. In a replay it is none: the acknowledgement may be older
        than the delivery."""
        return packet_id in self.in_flight and not self.resuming

    def movable(self, delivery: Delivery, group: str) -> bool:
        """Whether a delivery of a shared group may move to another member: if it was not sent, or with QoS 1. QoS 2
        stays with the member that it was sent to [MQTT-4.8.2-4]."""
        if delivery.group != group:
            return False
        if delivery.state == QUEUED:
            return delivery.qos == 1 or not delivery.dup
        return delivery.qos == 1 and delivery.state == SENT

    def sent_of(self, group: str) -> list[Delivery]:
        """The deliveries of a shared group that are in flight and may move, in order."""
        found = [delivery for delivery in self.in_flight.values() if self.movable(delivery, group)]
        found.sort(key=_by_number)
        return found

    def withdraw(self, delivery: Delivery, place: int, connected: bool) -> None:
        """Take out a delivery that moved to another member, from its ``place`` in the queue, or from those in flight if
        that is negative. One that is in flight to a ``connected`` receiver keeps its place until the receiver
        acknowledges it: it counts against the receive maximum [MQTT-3.3.4-9]."""
        if place >= 0:
            self.waiting.remove(place)
            self._uncount(delivery)
        elif connected:
            self.unload(delivery)
            delivery.state = WITHDRAWN
        else:
            del self.in_flight[packet_id_of(delivery.number)]
            self._uncount(delivery)

    def withdraw_all(self, moved: set[Delivery], connected: bool) -> None:
        """As ``withdraw``, for several deliveries, wherever they are. The search begins at the end of the queue: those
        that wait were added last."""
        left = len(moved)
        waiting = self.waiting
        for place in range(waiting.end() - 1, waiting.begin() - 1, -1):
            if not left:
                return
            delivery = waiting.at(place)
            if delivery is not None and delivery in moved:
                self.withdraw(delivery, place, connected)
                left -= 1
        for sent in list(self.in_flight.values()):
            if sent in moved:
                self.withdraw(sent, -1, connected)

    def received(self, packet_id: int) -> Delivery | None:
        """Handle PUBREC. Returns the delivery, which may be released already; ``None`` for an unknown identifier, and
        for a delivery of QoS 1 (see ``misfit``)."""
        delivery = self.in_flight.get(packet_id)
        if delivery is None:
            delivery = self._take_from_queue(packet_id, PUBREC)
            if delivery is None:
                return None
            self.in_flight[packet_id] = delivery
        elif not _fits(delivery, PUBREC):
            return None
        return delivery

    def _take_from_queue(self, packet_id: int, type: int) -> Delivery | None:
        """Take out a restored delivery whose acknowledgement is replayed: the connection outlived the process that sent
        it.

        Acknowledgements arrive in sending order [MQTT-4.6.0-2], so the search nearly always ends at the head.
        """
        if not self.resuming:
            return None
        waiting = self.waiting
        for place in range(waiting.begin(), waiting.end()):
            delivery = waiting.at(place)
            if delivery is not None and delivery.qos > 0 and packet_id_of(delivery.number) == packet_id:
                if not _fits(delivery, type):
                    return None
                waiting.remove(place)
                return delivery
        return None

    def reconnect(self) -> list[Delivery]:
        """Begin a new connection: deliveries in flight are sent first, in order, with DUP [MQTT-3.3.1-1].

        Returns the released deliveries, whose PUBREL is due again [MQTT-4.4.0-1]. Deliveries of QoS 0 are removed.
        """
        for delivery in self.in_flight.values():
            if delivery.state == SENT:
                delivery.dup = True
                delivery.expires = NEVER  # a delivery that has begun is completed [MQTT-4.3.3-7]
        waiting = self.waiting
        for place in range(waiting.begin(), waiting.end()):
            if not self.unreliable:  # those of QoS 0 are near the head: they are dropped when the queue is long
                break
            waits = waiting.at(place)
            if waits is not None and waits.qos == 0:
                waiting.remove(place)
                self._uncount(waits)
        waiting.tidy()
        self.restored = False
        return self._requeue(set())

    def resume(self, unacknowledged: list[int]) -> list[Delivery]:
        """Continue a connection that outlived its link, or this process. The receiver has the ``unacknowledged``
        identifiers.

        Those stay in flight and are not repeated: MQTT allows repeats only on a new connection [MQTT-4.4.0-1]. All
        other sent deliveries were lost on the way and are sent again, without a new DUP flag. Returns the released
        deliveries, whose PUBREL is due again.
        """
        with_receiver = set(unacknowledged)
        if self.restored:
            self.restored = False
            self._adopt(with_receiver)
        for packet_id in unacknowledged:
            if packet_id not in self.in_flight:
                self._occupy(packet_id)
        return self._requeue(with_receiver)

    def _occupy(self, packet_id: int) -> None:
        """The receiver has a message that is no longer in this session: it went to another receiver. Keep its
        identifier in use until the receiver acknowledges it, by any acknowledgement (QoS 0 fits all)."""
        delivery = Delivery(None, 0, False, (), 0.0)
        delivery.number = packet_id - 1
        delivery.state = WITHDRAWN
        self.in_flight[packet_id] = delivery
        self._count(delivery)

    def _adopt(self, with_receiver: set[int]) -> None:
        """After a crash: mark the deliveries that the receiver has as in flight; the others were not sent on this
        connection. They keep their places: a job that moves them may be under way."""
        waiting = self.waiting
        for place in range(waiting.begin(), waiting.end()):
            delivery = waiting.at(place)
            if delivery is None:
                continue
            packet_id = packet_id_of(delivery.number)
            delivery.dup = False
            if packet_id in with_receiver and packet_id not in self.in_flight:
                delivery.state = SENT
                self.in_flight[packet_id] = delivery
                waiting.remove(place)

    def _requeue(self, with_receiver: set[int]) -> list[Delivery]:
        """Put deliveries in flight that are not ``with_receiver`` back in the queue; returns the released ones."""
        self.resuming = False
        requeued: list[Delivery] = []
        released: list[Delivery] = []
        in_flight: dict[int, Delivery] = {}
        for packet_id, delivery in self.in_flight.items():
            if delivery.state == RELEASED:
                released.append(delivery)
            if delivery.state == RELEASED or packet_id in with_receiver:
                in_flight[packet_id] = delivery
            elif delivery.state == WITHDRAWN:
                self._uncount(delivery)
            else:
                delivery.state = QUEUED
                requeued.append(delivery)
                if delivery.expires != NEVER:
                    self._note_expiry(delivery.expires)
        requeued.sort(key=_by_number)
        self.waiting.prepend(requeued)
        self._searched = self.waiting.begin()  # a search for expired ones begins again
        self._later = NEVER
        self.in_flight = in_flight
        return released


def _fits(delivery: Delivery, type: int) -> bool:
    """Whether an acknowledgement of this packet type fits the state of a delivery."""
    if delivery.qos == 0:
        return True  # see ``Outbound._occupy``
    if type == PUBCOMP:
        return delivery.state == RELEASED
    return delivery.qos == (1 if type == PUBACK else 2)


def _by_number(delivery: Delivery) -> int:
    return delivery.number
