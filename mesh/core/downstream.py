"""What back ends publish to the vehicles of one edge: sent directly, or by way of the spool.

It knows deliveries, their publishers' receipts and the spool: never packets or the connection. What always holds:

* a publish of a back end is answered when the edge has answered it, or when it is in the spool: as soon as the edge is
  away, does not answer in ``answer`` seconds, or has messages of its own still waiting in the spool, new ones are
  spooled;
* QoS 2 is spooled first, because its packet identifier must be the same after a crash of the core;
* messages reach the edge in the order in which they came here, spooled or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from mesh.broker.broker import Broker
from mesh.core.spans import Ends, RelaySpans
from mesh.core.spool import Spool
from mesh.session.application import Sender
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.session.outbound import Delivery, Depth, Outbound
from mesh.session.store import Item
from mesh.wire import reasons
from mesh.wire.tracecontext import TraceContext

IN_FLIGHT: Final = 8192  # publishes with the edge; its own limit may be lower


@final
class Downstream(Sender):
    """``outbound`` is the queue of the session with the edge."""

    def __init__(self, broker: Broker, spool: Spool, answer: float, ends: Ends) -> None:
        self.outbound = Outbound(Depth(), IN_FLIGHT)
        self.spooled = 0
        self.rejected = 0  # spooled messages that the edge refused after the back end had been answered
        self._broker = broker
        self._spool = spool
        self._answer_within = answer
        self._spans = RelaySpans(broker, ends)
        self._spool_waiting = 0  # spooled deliveries in the queue: while there are any, new ones go behind them on disk
        self._slow = False  # the edge does not answer in time
        self._direct = 0  # deliveries whose publisher waits

    def restore(self, items: Iterable[Item]) -> None:
        """Take back what the journal kept."""
        self._spool.restore(items, self.outbound)
        self._spool_waiting = len(self.outbound.waiting)

    def waits(self) -> bool:
        """Whether a spooled message may wait for the journal."""
        return self._spool_waiting > 0

    # From the link

    def queue(self, message: Message, receipt: Receipt | None, up: bool) -> bool:
        """Queue a message of QoS 1 or 2; False if the spool is full, as the receipt then says. ``up``: the edge is
        there."""
        qos = message.qos
        delivery = Delivery(message, qos, message.retain, (), message.received, message.expires, message.size())
        direct = up and qos == 1 and not self._slow and self._spool_waiting == 0
        if not direct and self._spool.full(delivery.size):
            if receipt is not None:
                receipt.note(reasons.QUOTA_EXCEEDED)
            return False
        self.outbound.number(delivery)
        if direct:
            delivery.receipt = receipt
            if receipt is not None:
                receipt.pending += 1
                self._direct += 1
        else:
            self._to_spool(delivery, message, up)
            self._spool_waiting += 1
            if receipt is not None:
                receipt.note(reasons.SUCCESS)
                receipt.position = max(receipt.position, delivery.position)
        self.outbound.push(delivery)
        return True

    def _to_spool(self, delivery: Delivery, message: Message, up: bool) -> None:
        self._spool.keep(delivery, message)
        self.spooled += 1
        if not up:
            delivery.message = None  # it may be long until it is sent: the journal alone holds it

    def accepted(self) -> None:
        """The edge is there; what it had not answered is in the queue again."""
        self._slow = False
        self._spool_waiting = sum(1 for delivery in self.outbound.waiting if delivery.item)

    def lost(self) -> None:
        """The edge is away: what it has not answered goes to the spool, and its publishers get their answers."""
        self._shelter(False)
        self._spans.lost()

    def tick(self, now: float) -> None:
        """Once a second while there is a connection: does the edge answer in time?"""
        if self._direct and self._oldest(now) < now - self._answer_within:
            self._slow = True
            self._shelter(True)

    def _oldest(self, now: float) -> float:
        """When the oldest message was sent whose publisher waits; ``now`` if there is none."""
        for delivery in self.outbound.in_flight.values():
            if delivery.receipt is not None:
                return delivery.started
        return now

    def _shelter(self, up: bool) -> None:
        """Put all whose publishers wait into the spool; they stay in flight if they are."""
        if not self._direct:
            return
        for _, delivery in sorted(self.outbound.in_flight.items()):
            self._shelter_one(delivery, up)
        for delivery in self.outbound.waiting:
            if self._shelter_one(delivery, up):
                self._spool_waiting += 1
        self._direct = 0

    def _shelter_one(self, delivery: Delivery, up: bool) -> bool:
        receipt, message = delivery.receipt, delivery.message
        if delivery.qos == 0 or delivery.item or message is None:
            return False
        delivery.receipt = None
        self._to_spool(delivery, message, up)
        if receipt is not None:
            receipt.position = max(receipt.position, delivery.position)
            self._answer(receipt, reasons.SUCCESS)
        return True

    def _answer(self, receipt: Receipt, reason: int) -> None:
        receipt.pending -= 1
        receipt.note(reason)
        self._broker.answered(receipt)

    # From the session

    def load(self, delivery: Delivery) -> Message:
        if delivery.item:
            self._spool_waiting -= 1
        return self._spool.load(delivery)

    def context(self, delivery: Delivery, message: Message, now: float) -> TraceContext | None:
        return self._spans.start(delivery, message, now)

    def released(self, delivery: Delivery) -> None:
        self._spool.release(delivery)

    def finished(self, delivery: Delivery, reason: int) -> None:
        self._spans.end(delivery, reason)
        if reason == reasons.PACKET_TOO_LARGE:
            self._broker.counters.dropped_large += 1
            reason = reasons.QUOTA_EXCEEDED  # PUBACK has no code of its own for this, table 3-4
        receipt = delivery.receipt
        if delivery.item:
            self._spool.forget(delivery)
            if reasons.is_error(reason):
                self.rejected += 1
        elif receipt is not None:
            self._direct -= 1
            self._answer(receipt, reason)
        if not self.outbound.in_flight:
            self._slow = False

    def expired(self, delivery: Delivery) -> None:
        if delivery.item:
            self._spool_waiting -= 1
        self.finished(delivery, reasons.SUCCESS)
