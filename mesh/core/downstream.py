"""The messages of back ends to the vehicles of one edge: sent directly, or through the spool.

It knows deliveries, their publishers' receipts and the spool: never packets or the connection. What always holds:

* a publish of a back end is answered when the edge has answered it, or when it is in the spool. New messages are
  spooled while the edge is disconnected, does not answer in ``answer`` seconds, or has messages waiting in the spool;
* no more than ``IN_FLIGHT_BYTES``, and one message, are sent and not acknowledged;
* a QoS 2 message is always spooled before it is sent, because its packet identifier must be the same after a crash of
  the core. One for a vehicle whose queue is full is spooled when it is due, and its publisher waits for PUBREC, the
  last answer that can refuse it. Until then nothing of it is in the journal (``Receipt.unplaced``);
* messages reach the edge in the order in which they came to this core, spooled or not; those for a vehicle whose queue
  is full wait in ``Holding``, where messages of other vehicles overtake them;
* work on all messages that wait is done in slices (``broker/work.py``): when the link is lost, when the edge does not
  answer, when the patience with a vehicle is spent. A message that comes meanwhile waits behind the others;
* deliveries of QoS 1 leave with growing numbers (``broker/ledger.py``), so one that was held gets a new number. Its
  record in the spool keeps the first one, so that recovery restores the order in which messages came. A delivery of
  QoS 2 keeps its number, because its packet identifier must be the same after a crash;
* a message that the edge refuses after its publisher was answered leaves the spool when it is in the dead letters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final, final

from mesh.broker.broker import Broker
from mesh.broker.refusals import can_be_told
from mesh.broker.settings import IN_FLIGHT_BYTES
from mesh.broker.versions import dated, is_withdrawal
from mesh.core.holding import KEPT, PASSES, PORTION, REFUSING, HeldVehicle, Holding
from mesh.core.spans import Ends, RelaySpans
from mesh.core.spool import Spool
from mesh.session.application import Sender
from mesh.session.fifo import Fifo
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.session.outbound import QUEUED, RELEASED, Delivery, Depth, Outbound, packet_id_of
from mesh.session.store import Item
from mesh.wire import reasons
from mesh.wire.tracecontext import TraceContext

_PORTION: Final = 64  # refused messages that go to the dead letters in one step
IN_FLIGHT: Final = 8192  # unacknowledged publishes to the edge; its own limit may be lower
_BYTES_IN_MEMORY: Final = 16 << 20  # of messages that wait for the edge; those beyond are in the journal only
# The edge's ledger remembers identifiers, which repeat after 65,535. If so many consecutive numbers are not sent, it
# could take the next message for one that it has.
_GAP: Final = 32_768

# Spooled messages in the queue up to which the publisher of a message for a full vehicle waits behind them.
_AHEAD: Final = IN_FLIGHT

# Steps of work on one delivery, see ``broker/work.py``: to write it, to refuse it, to look at it, to queue it again.
_WRITE: Final = 8
_REFUSE: Final = 16
_LOOK: Final = 1
_QUEUE: Final = 4

# Why no message is sent.
GREETING: Final = 1  # the edge has not named all vehicles whose queues are full
SOCKET: Final = 2  # the edge does not read
BYTES: Final = 4  # ``IN_FLIGHT_BYTES`` are not acknowledged
REPEATS: Final = 8  # it is not decided yet which messages are marked as repeats

log = logging.getLogger(__name__)


@final
class Downstream(Sender):
    """``outbound`` is the queue of the session with the edge; ``holding`` has the messages that are held back. ``pump``
    is called when messages may be sent after a step of long work."""

    def __init__(self, broker: Broker, spool: Spool, answer: float, patience: float, ends: Ends) -> None:
        self.withholding = False
        self.holding = Holding(patience)
        self.pump: Callable[[], None] = _no_session
        self._unnamed: dict[str, None] = {}  # held vehicles that the edge has not named on this connection
        self._connections = 0  # how many connections the edge has accepted
        self._up = False  # it has accepted the present one
        self._spooling = False  # messages whose publishers wait are being spooled
        self._places: dict[Delivery, int] = {}  # of deliveries that were held: the number that each had first
        self._window = 0  # of ``outbound`` while nothing stops it
        self._stops = 0  # why no message is sent now; 0: for no reason
        self._weighs = False  # so many bytes wait and are in flight that ``_flying`` is counted
        self._flying = 0  # bytes in flight
        self._unsent = 0  # how many consecutive numbers up to ``_next`` no delivery of QoS 1 was sent with
        self._next = 0
        self._gap = False  # among the numbers sent on this connection is a gap that confuses the edge's ledger
        self._distrust = False  # the same for the connection before
        self.outbound = Outbound(Depth(), IN_FLIGHT)
        broker.quotas.depths.append(self.outbound.depth)
        self.spooled = 0
        self.rejected = 0  # spooled messages that the edge refused after the back end had been answered
        self._broker = broker
        self._spool = spool
        self.answer_within = answer
        self._spans = RelaySpans(broker, ends)
        self._spool_waiting = 0  # spooled deliveries in the queue: while there are any, new messages are spooled too
        self._slow = False  # the edge does not answer in time
        self._direct = 0  # deliveries whose publishers wait for the answer of the edge
        self._unspooled = 0  # those of QoS 2 among them
        self._refusals: Fifo[tuple[Delivery, int]] = Fifo()  # of the edge, for messages that are still in the spool

    def restore(self, items: Iterable[Item]) -> None:
        """Restore the spooled messages from the journal."""
        self._spool.restore(items, self.outbound)
        self._spool_waiting = len(self.outbound.waiting)

    def waits(self) -> bool:
        """Whether a spooled message may wait for the journal."""
        return self._spool_waiting > 0

    # From the link

    def queue(self, message: Message, receipt: Receipt | None, up: bool) -> bool:
        """Queue a message of QoS 1 or 2. False if the spool is full; the receipt has the reason code. ``up``: the edge
        is connected."""
        qos = message.qos
        delivery = Delivery(message, qos, message.retain, (), message.received, message.expires, message.size())
        # A will has no publisher that would send it again, so it is spooled at once.
        direct = receipt is not None and (
            (qos == 1 and up and not self._slow and self._spool_waiting == 0)
            or ((self.withholding or self._spooling) and self._may_wait(message, receipt, up))
        )
        if (not direct or self._spooling) and not self._may_spool(delivery.size):
            self._broker.refusals.refuse(message, receipt, reasons.QUOTA_EXCEEDED)
            return False
        self.outbound.number(delivery)
        if direct and receipt is not None:
            delivery.receipt = receipt
            receipt.pending += 1
            self._direct += 1
            if qos == 2:
                receipt.unplaced += 1
                self._unspooled += 1
                self.withholding = True
        else:
            self._to_spool(delivery, message)
            self._spool_waiting += 1
            if receipt is not None:
                receipt.note(reasons.SUCCESS)
                receipt.position = max(receipt.position, delivery.position)
        self.outbound.push(delivery)
        return True

    def _may_wait(self, message: Message, receipt: Receipt, up: bool) -> bool:
        """Whether the publisher of a new message waits: because its vehicle's queue is full, or because older messages
        are being spooled. For a message of QoS 2 that this core has kept, for a back end or as a retained message, it
        does not: the identifier is in the journal too."""
        if message.qos == 2 and receipt.position:
            return False
        if self._spooling:
            return True
        if not up or self._slow or self._spool_waiting > _AHEAD:
            return False
        return self._broker.vehicle_of(message.topic) in self.holding.vehicles

    def give(self, message: Message) -> Delivery | None:
        """Spool a message of QoS 1 or 2 that no publisher waits for. ``None`` if the spool is full."""
        size = message.size()
        if self._spool.full(size):
            return None
        delivery = Delivery(message, message.qos, message.retain, (), message.received, message.expires, size)
        self.outbound.number(delivery)
        self._to_spool(delivery, message)
        self._spool_waiting += 1
        self.outbound.push(delivery)
        return delivery

    def _may_spool(self, size: int) -> bool:
        spool = self._spool
        return not spool.full(size) and self._broker.quotas.may_spool(spool.edge, spool.bytes, size)

    def _to_spool(self, delivery: Delivery, message: Message) -> None:
        self._spool.keep(delivery, message, self._places.get(delivery, delivery.number))
        self.spooled += 1
        if not self._up or self.outbound.bytes > _BYTES_IN_MEMORY:
            self.outbound.unload(delivery)  # it may wait for long: keep it in the journal only

    def accepted(self, signals: bool) -> None:
        """The edge has accepted this core; the messages that it had not answered are in the queue again. ``signals``:
        it names the vehicles whose queues are full first."""
        self._up = True
        self._connections += 1
        self._window = self.outbound.window
        self._stops = 0
        self._weighs = False
        self._slow = False
        self._spool_waiting = len(self.outbound.waiting) - self.outbound.unreliable - self._direct
        if self._distrust:
            self.stop(REPEATS)
            self._broker.work.start(self._send_anew(self._connections))
        self._unnamed = dict.fromkeys(self.holding.vehicles)
        if signals:
            self.stop(GREETING)
        else:
            self._drain_unnamed()

    def _send_anew(self, connection: int) -> Iterator[int]:
        """Mark no message as a repeat: a copy is better than a message that the edge takes for one that it has."""
        waiting = self.outbound.waiting
        place = waiting.begin()
        while place < waiting.end():
            delivery = waiting.at(place)
            place += 1
            if delivery is not None and delivery.qos == 1 and delivery.dup:
                delivery.dup = False
                self._gap = True  # it is still before this one
            yield _LOOK
            if self._connections != connection or not self._up:
                return
        self._distrust = False
        self.go(REPEATS)
        self.pump()

    def stop(self, why: int) -> None:
        """Send no message of QoS 1 or 2 until ``go``."""
        self._stops |= why
        self.outbound.window = 0

    def go(self, why: int) -> None:
        """A reason to stop has ended; the caller sends what waits."""
        if self._stops:
            self._stops &= ~why
            if not self._stops:
                self.outbound.window = self._window

    def _weigh(self, delivery: Delivery) -> None:
        """Count the bytes in flight, and stop at the limit. ``delivery`` is in flight now."""
        if self._weighs:
            self._flying += delivery.size
        else:
            self._weighs = True
            self._flying = sum(one.size for one in self.outbound.in_flight.values())
        if self._flying >= IN_FLIGHT_BYTES:
            self.stop(BYTES)

    def _lighten(self, delivery: Delivery) -> None:
        """A delivery has left those in flight."""
        self._flying -= delivery.size
        if 2 * self._flying <= IN_FLIGHT_BYTES:
            self.go(BYTES)
            self._weighs = self.outbound.bytes > IN_FLIGHT_BYTES

    def lost(self) -> None:
        """The edge is disconnected: spool the messages that it has not answered, and answer their publishers."""
        self._up = False
        self._unnamed = {}
        if self._gap:
            self._distrust = True
            self._gap = self._unsent >= _GAP and self.outbound.sent <= self._next  # nothing was sent behind it yet
        self._spool_unanswered()
        self._spans.lost()

    # Vehicles whose queues are full

    def admits(self, message: Message, receipt: Receipt | None) -> bool:
        """Whether a message is queued while messages are held; if not, its receipt has the reason code."""
        if self.holding.admits(self._broker.vehicle_of(message.topic), message.size()):
            return True
        self._broker.refusals.refuse(message, receipt, reasons.QUOTA_EXCEEDED)
        return False

    def signal(self, vehicle: str, high: bool) -> None:
        """The edge says that the queue of a vehicle is full, or has drained; without a name, that it has named all."""
        if not vehicle:
            self.go(GREETING)
            self._drain_unnamed()
            return
        self._unnamed.pop(vehicle, None)
        draining = self.holding.signal(vehicle, high, self._broker.clock())
        self._update_withholding()
        if draining is not None:
            self._send_portion(draining)

    def _drain_unnamed(self) -> None:
        """The edge has named all vehicles whose queues are full: the others drain."""
        if self._unnamed:
            self._broker.work.start(self._drain_others(self._unnamed))

    def _drain_others(self, unnamed: dict[str, None]) -> Iterator[int]:
        while unnamed and self._unnamed is unnamed:
            self.signal(unnamed.popitem()[0], False)
            self.pump()
            yield PORTION * _QUEUE

    def _update_withholding(self) -> None:
        self.withholding = bool(self.holding.vehicles) or self._unspooled > 0

    def withholds(self, delivery: Delivery, message: Message) -> bool:
        if delivery.started != 0.0:
            return False  # sent before: the edge may have it, and it comes before those that are held
        vehicle = self._broker.vehicle_of(message.topic)
        fate = self.holding.judge(vehicle, delivery)
        unspooled = delivery.qos == 2 and not delivery.item
        if fate == PASSES and not unspooled:
            return False
        self.outbound.take_out(packet_id_of(delivery.number))
        if self._weighs:
            self._lighten(delivery)
        self._skip(delivery)
        if delivery.receipt is not None:
            self._direct -= 1
        if unspooled:
            self._unspooled -= 1
            self._update_withholding()
        if fate == PASSES:
            self._spool_due(delivery)
            self.outbound.put_first(delivery)
        elif fate == KEPT:
            self._places.setdefault(delivery, delivery.number)
            if delivery.item:
                delivery.message = None
            held = self.holding.vehicles[vehicle]
            if held.open == 0:
                self._send_portion(held)
        else:
            self._refuse(delivery)
        return True

    def _send_portion(self, vehicle: HeldVehicle) -> None:
        """Queue the next portion of a draining vehicle, if it is due."""
        for delivery in self.holding.portion(vehicle):
            if delivery.qos == 1:
                self.outbound.number(delivery)
            if delivery.item:
                self._spool_waiting += 1
            elif delivery.qos == 2:
                self._spool_due(delivery)
            elif delivery.receipt is not None:
                self._direct += 1
            self.outbound.push(delivery)
        self._update_withholding()

    def _spool_due(self, delivery: Delivery) -> None:
        """A message of QoS 2 need not wait any longer: spool it, and answer its publisher."""
        self._spool_now(delivery)
        self._spool_waiting += 1

    def _refuse(self, delivery: Delivery) -> None:
        self._places.pop(delivery, None)
        self._refuse_unanswered(delivery, reasons.QUOTA_EXCEEDED)

    def _refuse_unanswered(self, delivery: Delivery, reason: int) -> None:
        """A message whose publisher is not answered is refused."""
        receipt = delivery.receipt
        if receipt is not None:
            receipt.pending -= 1
        self._broker.refusals.refuse(self._spool.load(delivery), receipt, reason)
        if receipt is not None:
            self._answered(receipt)

    def _skip(self, delivery: Delivery) -> None:
        """A number is not sent, or not with QoS 1: the edge's ledger does not see it."""
        if delivery.number < self._next:
            return  # a delivery of QoS 2 that comes again
        self._unsent = self._unsent + 1 if delivery.number == self._next else 1
        self._next = delivery.number + 1
        if self._unsent >= _GAP:
            self._gap = True

    def _lose_patience(self, now: float) -> None:
        spent = self.holding.impatient(now)
        if spent:
            self._broker.work.start(self._refuse_held(spent))

    def _refuse_held(self, spent: list[HeldVehicle]) -> Iterator[int]:
        """Refuse the held messages of vehicles whose publishers wait, unless the queue of the vehicle drains first."""
        refused = 0
        for vehicle in spent:
            for held in (vehicle.returned, vehicle.held):
                place = held.begin()
                while place < held.end() and vehicle.state == REFUSING:
                    delivery = self.holding.refuse(held, place)
                    place += 1
                    if delivery is None:
                        yield _LOOK
                    else:
                        refused += 1
                        self._refuse(delivery)
                        yield _REFUSE
                held.tidy()
        others = "" if len(spent) == 1 else f" and {len(spent) - 1} other vehicles"
        log.warning(
            "the queue of vehicle %s%s is full for longer than queue_patience: %d held messages are refused, and "
            "new ones until it has drained", spent[0].name, others, refused,
        )  # fmt: skip

    def _report_overflow(self) -> None:
        vehicle, self.holding.overflowed = self.holding.overflowed, ""
        log.warning(
            "messages for vehicle %s are refused: its queue is full, and %d messages wait for such vehicles",
            vehicle, self.holding.messages,
        )  # fmt: skip

    def tick(self, now: float) -> None:
        """Called once a second while connected: check that the edge answers in time, and that held messages do not wait
        for too long."""
        self.keep_refused()
        if self.withholding:
            self._lose_patience(now)
        if self.holding.overflowed:
            self._report_overflow()
        if self._direct and self._oldest(now) < now - self.answer_within:
            self._slow = True
            self._spool_unanswered()

    def _oldest(self, now: float) -> float:
        """The send time of the oldest message whose publisher waits; ``now`` if there is none."""
        for delivery in self.outbound.in_flight.values():
            if delivery.receipt is not None:
                return delivery.started
        return now

    def _spool_unanswered(self) -> None:
        """Spool all messages whose publishers wait; those in flight stay in flight. Held messages are spooled if the
        edge is disconnected."""
        if not self._spooling and (self._direct or (self.holding.messages and not self._up)):
            self._spooling = True
            self._broker.work.start(self._spool_all())

    def _spool_all(self) -> Iterator[int]:
        try:
            again = True
            while again:
                before = self.spooled
                yield from self._spool_sent()
                if not self._up and self.holding.messages:
                    yield from self._spool_held()
                yield from self._spool_queued()
                # The link may have come back and been lost again.
                left = self._direct > 0 or self.holding.messages > 0
                again = left and not self._up and self.spooled > before
        finally:
            self._spooling = False

    def _spool_sent(self) -> Iterator[int]:
        sent = [delivery for delivery in self.outbound.in_flight.values() if delivery.receipt is not None]
        sent.sort(key=_by_number)
        for delivery in sent:
            if delivery.receipt is not None:  # not answered meanwhile
                self._spool_one(delivery)
                yield _WRITE

    def _spool_held(self) -> Iterator[int]:
        """Messages that are held wait for the edge again when the link is back."""
        for vehicle in list(self.holding.vehicles.values()):
            for held in (vehicle.returned, vehicle.held):
                place = held.begin()
                while place < held.end() and not self._up:
                    delivery = held.at(place)
                    place += 1
                    if delivery is None or delivery.receipt is None:
                        yield _LOOK
                    else:
                        self.holding.spooled(delivery)
                        self._spool_now(delivery)
                        delivery.message = None
                        yield _WRITE

    def _spool_queued(self) -> Iterator[int]:
        waiting = self.outbound.waiting
        place = waiting.begin()
        while place < waiting.end() and self._direct:
            delivery = waiting.at(place)
            place += 1
            if delivery is None or delivery.receipt is None:
                yield _LOOK
            else:
                self._spool_one(delivery)
                yield _WRITE

    def _spool_one(self, delivery: Delivery) -> None:
        """Spool a message that is in the queue or in flight, and answer its publisher."""
        self._direct -= 1
        if delivery.state == QUEUED:
            self._spool_waiting += 1
        if delivery.qos == 2:
            self._unspooled -= 1
            self._update_withholding()
        self._spool_now(delivery)

    def _spool_now(self, delivery: Delivery) -> None:
        receipt, message = delivery.receipt, delivery.message
        assert receipt is not None
        assert message is not None
        delivery.receipt = None
        self._to_spool(delivery, message)
        receipt.position = max(receipt.position, delivery.position)
        self._answer(receipt, reasons.SUCCESS)

    def _answer(self, receipt: Receipt, reason: int) -> None:
        receipt.pending -= 1
        receipt.note(reason)
        self._answered(receipt)

    def _answered(self, receipt: Receipt) -> None:
        if receipt.qos != 2:
            self._broker.answered(receipt)
            return
        receipt.unplaced -= 1
        if not receipt.unplaced:
            self._broker.placed(receipt)

    # From the session

    def load(self, delivery: Delivery) -> Message:
        if self.outbound.bytes > IN_FLIGHT_BYTES:
            self._weigh(delivery)
        if delivery.item:
            self._spool_waiting -= 1
            if delivery.qos == 2:
                self._skip(delivery)
        message = self._spool.load(delivery)
        if message.retain and message.payload and self._broker.vehicle_of(message.topic):
            return dated(message)  # here: what the edge refuses becomes a dead letter as it was published
        return message

    def context(self, delivery: Delivery, message: Message, now: float) -> TraceContext | None:
        return self._spans.start(delivery, message, now)

    def released(self, delivery: Delivery) -> None:
        self._spool.release(delivery)
        self.outbound.unload(delivery)

    def finished(self, delivery: Delivery, reason: int) -> None:
        self._spans.end(delivery, reason)
        if self._weighs:
            self._lighten(delivery)
        if self._places:
            self._finished_held(delivery)
        if reasons.is_error(reason):
            self._refused(delivery, reason)
        elif delivery.item:
            self._spool.forget(delivery)
        elif delivery.receipt is not None:
            self._direct -= 1
            if delivery.qos == 2:  # it has expired
                self._unspooled -= 1
                self._update_withholding()
            receipt, delivery.receipt = delivery.receipt, None
            self._answer(receipt, reason)
        if not self.outbound.in_flight:
            self._slow = False

    def _finished_held(self, delivery: Delivery) -> None:
        self._places.pop(delivery, None)
        vehicle = self.holding.answered(delivery)
        if vehicle is not None:
            self._send_portion(vehicle)

    def _refused(self, delivery: Delivery, reason: int) -> None:
        """The edge has refused a message. One whose publisher was answered goes to the dead letters."""
        if reason == reasons.PACKET_TOO_LARGE:
            self._broker.counters.dropped_large += 1
        receipt = delivery.receipt
        if delivery.qos == 0:
            return
        if delivery.item:
            if delivery.state == RELEASED:  # the edge has it: PUBREC came before
                self._spool.forget(delivery)
                return
            self.rejected += 1
            self._refusals.append((delivery, reason))
            self.keep_refused()
            return
        if receipt is not None:
            self._direct -= 1
        # PUBACK has no code for a packet that is too large, table 3-4.
        code = reasons.QUOTA_EXCEEDED if reason == reasons.PACKET_TOO_LARGE else reason
        if receipt is None or not can_be_told(receipt):
            code = reason
        self._refuse_unanswered(delivery, code)

    def keep_refused(self) -> None:
        """Put spooled messages that the edge refused into the dead letters, then drop them from the spool; as long as
        there is no room, they stay in the spool and count there. Called once a second."""
        refused = self._refusals
        for _ in range(min(len(refused), _PORTION)):
            delivery, reason = refused.first()
            if not self._broker.refusals.keep_spooled(self._spool.load(delivery), reason):
                return
            refused.popleft()
            self._spool.forget(delivery)

    def discard(self) -> Iterator[int]:
        """The mesh does not have the edge now, which is disconnected: empty the spool. Those of the fleet's topics are
        dropped, those for vehicles go to the dead letters."""
        while self._spooling:
            yield _LOOK
        for vehicle in list(self.holding.vehicles.values()):
            held = vehicle.take()
            while held is not None:
                yield self._discard(held)
                held = vehicle.take()
        delivery = self.outbound.drop_any()
        while delivery is not None:
            yield self._discard(delivery)
            delivery = self.outbound.drop_any()
        while self._refusals:
            refused, _ = self._refusals.popleft()
            yield self._discard(refused)
        self._broker.quotas.depths.remove(self.outbound.depth)

    def _discard(self, delivery: Delivery) -> int:
        """Drop a message whose publisher was answered; returns the steps of work."""
        if not delivery.item:
            return _LOOK
        if delivery.state != RELEASED:  # else the edge had it
            message = self._spool.load(delivery)
            if self._broker.vehicle_of(message.topic) and not is_withdrawal(message):
                self._broker.refusals.keep_refused(message, None, reasons.UNSPECIFIED_ERROR)
        self._spool.forget(delivery)
        return _REFUSE

    def expired(self, delivery: Delivery) -> None:
        if self._broker.settings.dead_letter_expired:
            self._broker.refusals.keep_expired(self._spool.load(delivery))
        if delivery.item:
            self._spool_waiting -= 1
        if self._weighs:
            self._flying += delivery.size  # ``load`` has not counted it
        self._skip(delivery)
        self.finished(delivery, reasons.SUCCESS)


def _by_number(delivery: Delivery) -> int:
    return delivery.number


def _no_session() -> None:
    """There is no session yet."""
