"""The messages of back ends to the vehicles of one edge: sent directly, or through the spool.

It knows deliveries, their publishers' receipts and the spool: never packets or the connection. What always holds:

* a publish of a back end is answered when the edge has answered it, or when it is in the spool. New messages are
  spooled while the edge is disconnected, does not answer in ``answer`` seconds, or has messages waiting in the spool;
* a QoS 2 message is always spooled first, because its packet identifier must be the same after a crash of the core;
* messages reach the edge in the order in which they came to this core, spooled or not.
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

IN_FLIGHT: Final = 8192  # unacknowledged publishes to the edge; its own limit may be lower
_BYTES_IN_MEMORY: Final = 16 << 20  # of messages that wait for the edge; those beyond are in the journal only


@final
class Downstream(Sender):
    """``outbound`` is the queue of the session with the edge."""

    def __init__(self, broker: Broker, spool: Spool, answer: float, ends: Ends) -> None:
        self.outbound = Outbound(Depth(), IN_FLIGHT)
        broker.quotas.depths.append(self.outbound.depth)
        self.spooled = 0
        self.rejected = 0  # spooled messages that the edge refused after the back end had been answered
        self._broker = broker
        self._spool = spool
        self._answer_within = answer
        self._spans = RelaySpans(broker, ends)
        self._spool_waiting = 0  # spooled deliveries in the queue: while there are any, new messages are spooled too
        self._slow = False  # the edge does not answer in time
        self._direct = 0  # deliveries whose publishers wait for the answer of the edge

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
        direct = up and qos == 1 and not self._slow and self._spool_waiting == 0
        if not direct and not self._may_spool(delivery.size):
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

    def give(self, message: Message) -> bool:
        """Spool a message of QoS 1 or 2 that no publisher waits for. False if the spool is full."""
        size = message.size()
        if self._spool.full(size):
            return False
        delivery = Delivery(message, message.qos, message.retain, (), message.received, message.expires, size)
        self.outbound.number(delivery)
        self._to_spool(delivery, message, False)
        self._spool_waiting += 1
        self.outbound.push(delivery)
        return True

    def _may_spool(self, size: int) -> bool:
        spool = self._spool
        return not spool.full(size) and self._broker.quotas.may_spool(spool.edge, spool.bytes, size)

    def _to_spool(self, delivery: Delivery, message: Message, up: bool) -> None:
        self._spool.keep(delivery, message)
        self.spooled += 1
        if not up or self.outbound.bytes > _BYTES_IN_MEMORY:
            self.outbound.unload(delivery)  # it may wait for long: keep it in the journal only

    def accepted(self) -> None:
        """The edge has accepted this core; the messages that it had not answered are in the queue again."""
        self._slow = False
        self._spool_waiting = sum(1 for delivery in self.outbound.waiting if delivery.item)

    def lost(self) -> None:
        """The edge is disconnected: spool the messages that it has not answered, and answer their publishers."""
        self._spool_unanswered(False)
        self._spans.lost()

    def tick(self, now: float) -> None:
        """Called once a second while connected: check that the edge answers in time."""
        if self._direct and self._oldest(now) < now - self._answer_within:
            self._slow = True
            self._spool_unanswered(True)

    def _oldest(self, now: float) -> float:
        """The send time of the oldest message whose publisher waits; ``now`` if there is none."""
        for delivery in self.outbound.in_flight.values():
            if delivery.receipt is not None:
                return delivery.started
        return now

    def _spool_unanswered(self, up: bool) -> None:
        """Spool all messages whose publishers wait; those in flight stay in flight."""
        if not self._direct:
            return
        for _, delivery in sorted(self.outbound.in_flight.items()):
            self._spool_one(delivery, up)
        for delivery in self.outbound.waiting:
            if self._spool_one(delivery, up):
                self._spool_waiting += 1
        self._direct = 0

    def _spool_one(self, delivery: Delivery, up: bool) -> bool:
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
        self.outbound.unload(delivery)

    def finished(self, delivery: Delivery, reason: int) -> None:
        self._spans.end(delivery, reason)
        if reason == reasons.PACKET_TOO_LARGE:
            self._broker.counters.dropped_large += 1
            reason = reasons.QUOTA_EXCEEDED  # PUBACK has no code for a packet that is too large, table 3-4
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
