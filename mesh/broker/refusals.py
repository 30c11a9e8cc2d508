"""What happens to a message that a receiver has no room for: only this file decides it.

It knows the receivers that missed a message, its publisher's receipt and the settings; it must never know packets. What
always holds:

* a publisher that can be told (MQTT 5.0) gets a reason code only if no receiver took the message: after an error it
  would send the message again, to all receivers;
* a publisher that cannot be told (MQTT 3.1 and 3.1.1) is not closed: its message goes to the dead letters, and it is
  answered when the letter is durable. A will goes to the dead letters, too;
* a back end's full queue spills into its dead letters, or (``hold``) takes the message and keeps its publisher waiting;
* with ``hold``, a queue or the dead letters exceed their limits by a bound at most. A publish beyond it is an error,
  and no receiver gets it; a publisher that cannot be told is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from mesh.broker.counters import BrokerCounters
from mesh.broker.courier import Courier
from mesh.broker.deadletters import DeadLetters
from mesh.broker.letter import EXPIRED, POISON, QUEUE_FULL, reason_of
from mesh.broker.notices import Notices, shortened
from mesh.broker.persistence import Persistence
from mesh.broker.principal import BACKEND, VEHICLE
from mesh.broker.room import Room
from mesh.broker.session import Connection, Session
from mesh.broker.settings import DEAD_LETTER, HOLD, Settings
from mesh.broker.subscriptions import RouteTarget
from mesh.session.fifo import Fifo
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.session.outbound import QUEUED, Delivery
from mesh.wire.packets import MQTT5
from mesh.wire.reasons import QUOTA_EXCEEDED, SUCCESS, name_of

RELEASED: Final = 1024  # publishers that one turn looks at
_NO_SHARE: Final = "other"


@final
class Missed:
    """A receiver that had no room. ``target`` is ``None`` for an inbox."""

    __slots__ = ("group", "session", "target")

    def __init__(self, session: Session, target: RouteTarget | None, group: str) -> None:
        self.session = session
        self.target = target
        self.group = group


@final
class Refusals:
    """``answered`` is called with a receipt that need not wait any longer; ``vehicle_of`` gives the vehicle of a topic,
    empty for none."""

    __slots__ = (
        "_answered", "_counters", "_courier", "_held", "_letters", "_notices", "_persistence", "_room", "_settings",
        "_vehicle_of",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        persistence: Persistence,
        letters: DeadLetters,
        courier: Courier,
        room: Room,
        counters: BrokerCounters,
        answered: Callable[[Receipt], None],
        vehicle_of: Callable[[str], str],
        notices: Notices,
    ) -> None:
        self._settings = settings
        self._persistence = persistence
        self._letters = letters
        self._courier = courier
        self._room = room
        self._counters = counters
        self._answered = answered
        self._vehicle_of = vehicle_of
        self._notices = notices
        self._held: dict[Session, Fifo[tuple[Delivery, Receipt]]] = {}  # above the limits of full queues of back ends

    # Receivers of this node

    def settle(
        self, message: Message, source: Session | None, receipt: Receipt | None, missed: list[Missed], taken: bool
    ) -> int:
        """Decide for the receivers that missed a message of QoS 1 or 2. ``taken``: another receiver took it. Returns
        SUCCESS, or the reason code for the publisher."""
        left: list[Missed] = []
        many = len(missed) > 1
        for one in missed:
            kind = one.session.kind
            if kind == BACKEND:
                self._of_backend(message, receipt, one, many)
                taken = True
            elif kind == VEHICLE and self._settings.inbox_when_full == DEAD_LETTER:
                self._keep(message, one.session.letter_share(), receipt, many)
                taken = True
            else:
                left.append(one)
        if not left:
            return SUCCESS
        if not taken and receipt is not None and can_be_told(receipt):
            self._counters.rejected += 1
            self._notices.warn("full", "a message on %s is refused: the queue of %s is full", shortened(message.topic),
                               shortened(left[0].session.letter_share()))  # fmt: skip
            return QUOTA_EXCEEDED
        for one in left:
            share = one.session.letter_share()
            if one.session.kind not in (VEHICLE, BACKEND):  # a core: the message belongs to its publisher
                share = self.share_of(message.topic, source)
            self._keep(message, share, receipt, many)
        return SUCCESS

    def share_of(self, topic: str, source: Session | None = None) -> str:
        """The share of a message that names no receiver: that of the vehicle of its topic, or of its publisher."""
        vehicle = self._vehicle_of(topic)
        if vehicle:
            return f"vehicle/{vehicle}"
        return _NO_SHARE if source is None else source.letter_share()

    def _keep(self, message: Message, share: str, receipt: Receipt | None, many: bool) -> None:
        if many and not message.body:
            self._persistence.share(message)
        if not self._letters.take(message, QUEUE_FULL, share, receipt):
            self._lost(message, share)

    def _lost(self, message: Message, share: str) -> None:
        """A message without a publisher that could wait (a will) finds no room anywhere."""
        self._counters.dropped_full += 1
        self._notices.warn("lost", "a message on %s for %s is dropped: its queue and the dead letters are full",
                           shortened(message.topic), shortened(share))  # fmt: skip

    def _of_backend(self, message: Message, receipt: Receipt | None, one: Missed, many: bool) -> None:
        session, target = one.session, one.target
        if self._settings.backend_when_full != HOLD or receipt is None or target is None or not session.durable:
            self._keep(message, session.letter_share(), receipt, many)
            return
        retain = message.retain and target.retain_as_published
        qos = min(message.qos, target.qos)
        delivery = self._courier.offer_above(session, message, qos, retain, target.identifiers, receipt, one.group)
        receipt.pending += 1
        held = self._held.get(session)
        if held is None:
            held = self._held[session] = Fifo()
            share = shortened(session.letter_share())
            self._notices.warn("held", "the queue of %s is full: publishers wait until it reads", share)
        held.append((delivery, receipt))

    def holds(self) -> bool:
        """Whether publishers wait for full queues or full dead letters."""
        settings = self._settings
        return settings.backend_when_full == HOLD or settings.dead_letter_when_full == HOLD

    def has_room(self, message: Message, source: Session, receivers: list[RouteTarget]) -> bool:
        """With ``hold``: whether the receivers' queues and dead letters may take a message, also above their limits.
        Publishers that lose their connections while they wait leave such messages behind. Call it before any receiver
        gets the message."""
        shares: list[str] = []  # of the letters that may be made
        if message.from_tier:
            shares.append(self.share_of(message.topic))  # of an inbox
        for target in receivers:
            session = target.session
            if not self._room.is_short(session, message.size()):
                continue
            if session.kind == BACKEND and session.durable and self._settings.backend_when_full == HOLD:
                if not self._may_exceed(session, message):
                    return self._beyond(message, session.letter_share())
            elif session.kind in (VEHICLE, BACKEND):
                shares.append(session.letter_share())
            else:
                shares.append(self.share_of(message.topic, source))
        return not shares or self._may_bury(message, shares)

    def _may_exceed(self, session: Session, message: Message) -> bool:
        settings, outbound = self._settings, session.outbound
        messages, size = self._room.limits(session)
        if len(outbound.waiting) >= messages + settings.hold_messages:
            return False
        return outbound.bytes + message.size() <= size + settings.hold_bytes

    def _may_bury(self, message: Message, shares: list[str]) -> bool:
        if self._settings.dead_letter_when_full != HOLD or self._letters.may_exceed(message, shares):
            return True
        return self._beyond(message, shares[0])

    def _beyond(self, message: Message, share: str) -> bool:
        self._counters.rejected += 1
        self._notices.warn("beyond", "a message on %s is refused: too many wait for room for %s",
                           shortened(message.topic), shortened(share))  # fmt: skip
        return False

    # Messages that other nodes, or tables of this one, refuse

    def refuse(self, message: Message, receipt: Receipt | None, reason: int, source: Session | None = None) -> None:
        """A message of QoS 1 or 2 was refused with a reason code: tell its publisher, or keep it for one that cannot be
        told. A publisher that has lost its connection was not answered: it sends the message again, but not one of QoS
        2, whose identifier is open, as a new message."""
        closed = receipt is not None and receipt.closed
        if receipt is not None and (receipt.qos == 1 if closed else can_be_told(receipt)):
            self._counters.rejected += 1
            self._notices.warn("refused", "a message on %s is refused: %s", shortened(message.topic), name_of(reason))
            receipt.note(reason)
            return
        if receipt is not None and not self._may_bury(message, [self.share_of(message.topic, source)]):
            receipt.note(reason)
            return
        self.keep_refused(message, receipt, reason, source)
        if receipt is not None:
            receipt.note(SUCCESS)

    def keep_refused(
        self, message: Message, receipt: Receipt | None, reason: int, source: Session | None = None
    ) -> None:
        """Put a refused message into the dead letters."""
        share = self.share_of(message.topic, source)
        if not self._letters.take(message, reason_of(reason), share, receipt):
            self._lost(message, share)

    def keep_poison(self, message: Message, receipt: Receipt | None, source: Session | None) -> None:
        """Put a message of QoS 1 or 2 in whose handling this process would end into the dead letters."""
        share = self.share_of(message.topic, source)
        if not self._letters.take(message, POISON, share, receipt):
            self._lost(message, share)

    def keep_spooled(self, message: Message, reason: int) -> bool:
        """Put a message that an edge refused, after its publisher was answered, into the dead letters. ``False``: with
        ``hold`` there is no room now."""
        if self._letters.take(message, reason_of(reason), self.share_of(message.topic), None):
            return True
        return self._settings.dead_letter_when_full != HOLD

    def keep_expired(self, message: Message) -> None:
        """Keep a message of QoS 1 or 2 that has expired on its way: the topology asks for it."""
        self._letters.take(message, EXPIRED, self.share_of(message.topic), None)

    # Time

    def release(self) -> bool:
        """Answer the publishers whose messages are within the limits of the queues again, a bounded number of them.
        Called at the end of every turn. Returns whether the next turn has more to do."""
        if not self._held:
            return False
        left = RELEASED
        changed = False
        for session in list(self._held):
            held = self._held.pop(session)
            count = min(len(held), left)
            left -= count
            changed = self._release(session, held, count) or changed
            if held:
                self._held[session] = held  # behind the others: all get their turn
            if not left:
                return changed
        return False

    def _release(self, session: Session, held: Fifo[tuple[Delivery, Receipt]], count: int) -> bool:
        """Look at the next ``count`` of the publishers that wait for a session. Returns whether one waits no longer."""
        full = self._room.is_full(session)
        before = len(held)
        repeated: set[Delivery] = set()
        for _ in range(count):
            delivery, receipt = held.popleft()
            if receipt.closed:  # its publisher repeats it, unless its QoS 2 identifier is open
                if receipt.qos == 1 and delivery.state == QUEUED and delivery.item:
                    repeated.add(delivery)
            elif full and self._settings.backend_when_full == HOLD:
                held.append((delivery, receipt))
            else:
                receipt.pending -= 1
                receipt.note(SUCCESS)
                self._answered(receipt)
        if repeated:
            session.outbound.withdraw_all(repeated, True)
            for delivery in repeated:
                self._persistence.forget(delivery)
        return len(held) < before

    @property
    def held(self) -> int:
        """How many publishers' answers wait for room in queues of back ends."""
        return sum(len(held) for held in self._held.values())


def can_be_told(receipt: Receipt) -> bool:
    """Whether the publisher gets a reason code. MQTT 3 has no negative acknowledgement."""
    holder = receipt.holder
    return not isinstance(holder, Connection) or holder.protocol == MQTT5
