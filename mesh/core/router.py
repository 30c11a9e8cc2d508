"""From a back end's message to the tier links of its vehicles.

It knows topics, vehicles and their owners: never packets. What always holds: messages for one vehicle are sent on in
the order in which they came, also while its owner is being looked up; a message without an owner is answered with a
reason code; an error at one message leaves no other without an answer; the messages that waited for a look-up are sent
on in slices.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final, final

from mesh.broker.broker import Broker
from mesh.broker.dispatcher import Forwarder
from mesh.broker.grant import matches_any
from mesh.broker.notices import Notices, shortened
from mesh.broker.session import Connection
from mesh.core.owners import Owners, OwnerUnknown
from mesh.core.tier import TierLink
from mesh.core.withdrawals import Withdrawals
from mesh.session.fifo import Fifo
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.wire import reasons
from mesh.wire.topics import matches

# Messages whose vehicle is being looked up. At 100,000 lookups a second this is a tenth of a second of work.
_MAX_PENDING: Final = 10_000
_MAX_PENDING_BYTES: Final = 64 << 20
_SEND: Final = 8  # steps of one message, see ``broker/work.py``

log = logging.getLogger(__name__)


@final
class Router(Forwarder):
    """``links`` are the tier links by edge; ``link_to`` makes one that is missing. ``vehicle_of`` gives the vehicle of
    a topic. ``fleet``: filters of the topics that go to every edge; they may be replaced. ``broker`` and
    ``withdrawals`` are set before the first message comes.
    """

    def __init__(
        self,
        vehicle_of: Callable[[str], str | None],
        fleet: tuple[str, ...],
        owners: Owners,
        links: Mapping[str, TierLink],
        link_to: Callable[[str], TierLink],
        wake: Callable[[], None],
    ) -> None:
        self.broker: Broker | None = None
        self.withdrawals: Withdrawals | None = None
        self.unknown = 0  # messages for vehicles without an owner
        self._vehicle_of = vehicle_of
        self.fleet = fleet
        self._owners = owners
        self._link_to = link_to
        self._links = links
        self._wake = wake
        self._pending: dict[str, Fifo[tuple[Message, Receipt | None]]] = {}
        self._pending_count = 0
        self._pending_bytes = 0
        self._lookups: set[asyncio.Task[None]] = set()
        self._faults = Notices(log.exception, time.monotonic)  # errors in this program, with their traceback

    def forward(self, message: Message, receipt: Receipt | None) -> None:
        """Send a message to the edge of its vehicle, or to every edge if its topic is fleet-wide. Other messages are
        between back ends and stay in this core."""
        vehicle = self._vehicle_of(message.topic)
        if vehicle is None:
            self._to_fleet(message, receipt)
            return
        edge = None if vehicle in self._pending else self._owners.cached(vehicle)
        if edge is not None:
            link = self._links.get(edge)
            if link is None:
                link = self._link_to(edge)
            link.send(message, receipt)
        else:
            self._look_up(vehicle, message, receipt)

    def withdraw(self, topic: str, time: float) -> None:
        """Have the edges delete a retained message that was sent to them. Other messages were never sent."""
        vehicle = self._vehicle_of(topic)
        if self.withdrawals is not None and (vehicle is not None or matches_any(self.fleet, topic)):
            self.withdrawals.add(topic, time, vehicle)

    def looks_up(self, vehicle: str) -> bool:
        """Whether messages for a vehicle wait for its owner."""
        return vehicle in self._pending

    def _to_fleet(self, message: Message, receipt: Receipt | None) -> None:
        for filter in self.fleet:
            if matches(filter, message.topic):
                links = list(self._links.values())
                if len(links) > 1:
                    message.fan_out = True
                if message.retain and self.broker is not None:
                    self.broker.dispatcher.note_fleet(message)
                    if receipt is not None:
                        receipt.position = max(receipt.position, self.broker.store.position)
                for link in links:
                    if message.retain:
                        link.send_retained(message, receipt)
                    else:
                        link.send(message, receipt)
                return

    def _look_up(self, vehicle: str, message: Message, receipt: Receipt | None) -> None:
        size = message.size()
        if self._pending_count >= _MAX_PENDING or self._pending_bytes + size > _MAX_PENDING_BYTES:
            self._refuse(message, receipt, reasons.QUOTA_EXCEEDED)
            return
        self._pending_count += 1
        self._pending_bytes += size
        if receipt is not None:
            receipt.pending += 1
            receipt.unplaced += 1
        waiting = self._pending.get(vehicle)
        if waiting is not None:
            waiting.append((message, receipt))
            return
        waiting = self._pending[vehicle] = Fifo()
        waiting.append((message, receipt))
        task = asyncio.get_running_loop().create_task(self._resolve(vehicle))
        self._lookups.add(task)
        task.add_done_callback(self._lookups.discard)

    async def _resolve(self, vehicle: str) -> None:
        edge: str | None = None
        reason = reasons.NO_MATCHING_SUBSCRIBERS
        try:
            edge = await self._owners.find(vehicle)
        except OwnerUnknown as error:
            reason = reasons.IMPLEMENTATION_SPECIFIC_ERROR  # PUBACK has no code for "unavailable"
            log.warning("the owner of vehicle %s cannot be determined: %s", vehicle, error)
        except Exception:  # the publishers wait for an answer, also after an error in this program
            reason = reasons.IMPLEMENTATION_SPECIFIC_ERROR
            log.exception("the owner of vehicle %s cannot be determined", vehicle)
        if self.broker is not None:
            self.broker.work.start(self._found(vehicle, edge, reason))
        self._wake()

    def _found(self, vehicle: str, edge: str | None, reason: int) -> Iterator[int]:
        """The owner of a vehicle is known: send on what waited for it. Messages that come meanwhile wait behind it."""
        waiting = self._pending[vehicle]
        while waiting:
            message, receipt = waiting.popleft()
            self._pending_count -= 1
            self._pending_bytes -= message.size()
            try:
                self._hand_on(edge, reason, message, receipt)
            except Exception:  # noqa: BLE001 - logged with its traceback
                self._faults.warn("answer", "a message for vehicle %s cannot be refused", vehicle)
                self._close_publisher(receipt)
            yield _SEND
        del self._pending[vehicle]

    def _hand_on(self, edge: str | None, reason: int, message: Message, receipt: Receipt | None) -> None:
        """The look-up has ended: send the message to its edge, or refuse it. After an error it is refused."""
        before = (0, 0) if receipt is None else (receipt.pending, receipt.unplaced)
        try:
            if edge is not None:
                self._link_to(edge).send(message, receipt)
            else:
                self.unknown += 1
                if reasons.is_error(reason):
                    self._refuse(message, receipt, reason)
        except Exception:  # noqa: BLE001 - logged with its traceback
            self._faults.warn("send", "a message on %s cannot be sent to %s", shortened(message.topic), edge)
            if receipt is not None:
                receipt.pending, receipt.unplaced = before
            self._refuse(message, receipt, reasons.IMPLEMENTATION_SPECIFIC_ERROR)
        if receipt is not None:
            self._placed(receipt)

    def _close_publisher(self, receipt: Receipt | None) -> None:
        """Close the publisher of a message that has no answer; it sends the message again."""
        if receipt is not None and self.broker is not None and isinstance(receipt.holder, Connection):
            self.broker.fail(receipt.holder, reasons.IMPLEMENTATION_SPECIFIC_ERROR)
            self._placed(receipt)

    def _refuse(self, message: Message, receipt: Receipt | None, reason: int) -> None:
        if message.qos and self.broker is not None:
            self.broker.refusals.refuse(message, receipt, reason)

    def _placed(self, receipt: Receipt) -> None:
        receipt.pending -= 1
        receipt.unplaced -= 1
        if self.broker is not None and not receipt.unplaced:
            self.broker.placed(receipt)

    async def stop(self) -> None:
        """Cancel the look-ups in progress."""
        tasks = list(self._lookups)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
