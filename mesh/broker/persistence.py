"""What the engine keeps in the journal, and how it comes back.

The only place that knows the form of the engine's journal items. It must never decide what is sent to whom. What always
holds:

* a delivery, a session or a subscription that bears an ``item`` is in the journal, and is dropped from it by this class
  only;
* a body that several deliveries share is dropped with the last of them;
* recovery reads no message body, whatever waits (a will is the exception: it is part of its session's state).

Sessions are ``owner`` of their items. The items of a session that is gone (a crash between its parts) are dropped at
recovery.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from typing import Final, final

from mesh.broker.ledger import Ledger
from mesh.broker.session import Interest, Session
from mesh.session.message import Message, pack, unpack
from mesh.session.outbound import RELEASED, Delivery, Depth
from mesh.session.record import SHARED
from mesh.session.store import Item, Store
from mesh.wire.packets import Subscription

# Kinds of items. Those from 16 on belong to the core.
SESSION: Final = 1
INTEREST: Final = 2
DELIVERY: Final = 3
BODY: Final = 4
RELEASE: Final = 5
INCOMING: Final = 6
LEDGER: Final = 8
RETAINED: Final = 9

# options, subscription identifier; then what it is owed if that is anything; then the filter
_INTEREST: Final = struct.Struct("!BI")
_OWED: Final = struct.Struct("!QQ")  # behind which item, up to which item
_IS_OWED: Final = 0x40  # in the options
_INCOMING: Final = struct.Struct("!H")
_LEDGER: Final = struct.Struct("!HH")  # first and last identifier; then the instance
_RETAINED: Final = struct.Struct("!d")  # when it expires; then the topic


@final
class RecoveredState:
    """What ``Keeper.recover`` found. ``retained`` is (item, topic, when it expires); ``other`` are the items of kinds
    that it does not know.
    """

    __slots__ = ("interests", "other", "retained", "sessions")

    def __init__(self) -> None:
        self.sessions: dict[int, Session] = {}
        self.interests: list[Interest] = []
        self.retained: list[tuple[int, str, float]] = []
        self.other: list[Item] = []


@final
class Persistence:
    """Writes the engine's state to ``store``. ``depth`` counts what waits in all sessions."""

    __slots__ = ("_bodies", "_stale", "depth", "next_session", "store")

    def __init__(self, store: Store) -> None:
        self.store = store
        self.depth = Depth()
        self.next_session = 1
        self._bodies: dict[int, int] = {}  # how many deliveries each shared body has
        self._stale: list[int] = []  # found at recovery; dropped when all items have been seen

    def new_id(self) -> int:
        """An owner number for a new session."""
        id = self.next_session
        self.next_session = id + 1
        return id

    # Sessions

    def keep_session(self, session: Session) -> None:
        """Write the session's state; the newer item replaces the older."""
        kind, name, client_id = session.key
        meta = json.dumps([
            kind, name, client_id, session.vehicle, session.expiry, session.ends, session.outbound.window,
            session.will_delay, session.will_due, session.outbound.next_number, session.connection is not None,
            session.outbound.sent,
        ]).encode()  # fmt: skip
        will = b"" if session.will is None else pack(session.will)
        old = session.item
        session.item = self.store.append(SESSION, session.id, meta, will)
        if old:
            self.store.drop(old)

    def forget_session(self, session: Session) -> None:
        """Let the session go, with everything that it owns."""
        self.forget_deliveries(session)
        for interest in session.interests.values():
            self.forget_interest(interest)
        for item in session.incoming.values():
            if item:
                self.store.drop(item)
        session.incoming.clear()
        ledger = session.ledger
        if ledger is not None and ledger.item:
            self.store.drop(ledger.item)
            ledger.item = 0
        if session.item:
            self.store.drop(session.item)
            session.item = 0

    def forget_deliveries(self, session: Session) -> None:
        """Let all that waits for the session go."""
        for delivery in session.outbound.waiting:
            self.forget(delivery)
        for delivery in session.outbound.in_flight.values():
            self.forget(delivery)

    def keep_interest(self, interest: Interest) -> None:
        """Write one subscription."""
        subscription = interest.subscription
        options = (
            subscription.qos
            | subscription.no_local << 2
            | subscription.retain_as_published << 3
            | subscription.retain_handling << 4
            | (_IS_OWED if interest.owed_until else 0)
        )
        meta = _INTEREST.pack(options, interest.identifier)
        if interest.owed_until:
            meta += _OWED.pack(interest.owed_after, interest.owed_until)
        interest.item = self.store.append(INTEREST, interest.session.id, meta + subscription.filter.encode(), b"")

    def note_arrears(self, interest: Interest, after: int, until: int) -> None:
        """Write which retained messages are still due by a subscription; the newer item replaces the older."""
        old = interest.item
        interest.owed_after, interest.owed_until = after, until
        self.keep_interest(interest)
        if old:
            self.store.drop(old)

    def forget_interest(self, interest: Interest) -> None:
        """Let one subscription go."""
        if interest.item:
            self.store.drop(interest.item)
            interest.item = 0

    # Deliveries

    def share(self, message: Message) -> None:
        """Write the body once, for several deliveries to come, and hold it until ``unshare``: the first of them may be
        over before the last is made."""
        message.body = self.store.append(BODY, 0, b"", pack(message))
        self._bodies[message.body] = 1

    def keep(self, session: Session, delivery: Delivery, message: Message) -> None:
        """Write a delivery, with the message itself unless ``message.body`` has it already."""
        body = message.body
        if body:
            self._bodies[body] += 1
            delivery.body = body
            delivery.item = self.store.append(DELIVERY, session.id, _meta(delivery), b"")
        else:
            delivery.item = self.store.append(DELIVERY, session.id, _meta(delivery), pack(message))
        delivery.position = delivery.item

    def load(self, delivery: Delivery) -> Message:
        """The message of a delivery, from the journal if need be."""
        message = delivery.message
        if message is None:
            message = unpack(self.store.read(delivery.body or delivery.item))
        return message

    def release(self, session: Session, delivery: Delivery) -> None:
        """PUBREC came: from now on only PUBREL is sent, also after a crash [MQTT-4.3.3-8]."""
        delivery.state = RELEASED
        delivery.message = None
        if delivery.item:
            old, body = delivery.item, delivery.body
            delivery.body = 0
            delivery.item = self.store.append(RELEASE, session.id, _meta(delivery), b"")
            delivery.position = delivery.item
            self._drop(old, body)

    def forget(self, delivery: Delivery) -> None:
        """The delivery is over."""
        if delivery.item:
            self._drop(delivery.item, delivery.body)
            delivery.item = 0
            delivery.body = 0

    def _drop(self, item: int, body: int) -> None:
        self.store.drop(item)
        if body:
            self._let_go(body)

    def _let_go(self, body: int) -> None:
        left = self._bodies[body] - 1
        if left:
            self._bodies[body] = left
        else:
            del self._bodies[body]
            self.store.drop(body)

    def unshare(self, message: Message) -> None:
        """All deliveries that share the body are made, if any."""
        self._let_go(message.body)
        message.body = 0

    # QoS 2 identifiers, retained messages

    def keep_incoming(self, session: Session, packet_id: int) -> int:
        """The client's QoS 2 message ``packet_id`` was accepted; returns the journal item."""
        return self.store.append(INCOMING, session.id, _INCOMING.pack(packet_id), b"")

    def keep_ledger(self, session: Session, ledger: Ledger) -> None:
        """Write how far a core's messages were taken; the newer item replaces the older."""
        old = ledger.item
        meta = _LEDGER.pack(ledger.first, ledger.last) + ledger.instance.encode()
        ledger.item = self.store.append(LEDGER, session.id, meta, b"")
        ledger.touched = False
        if old:
            self.store.drop(old)

    def keep_retained(self, message: Message) -> int:
        """Write a retained message; returns its item."""
        return self.store.append(RETAINED, 0, _RETAINED.pack(message.expires) + message.topic_bytes, pack(message))

    def drop(self, item: int) -> None:
        """Let a QoS 2 identifier or a retained message go."""
        self.store.drop(item)

    def read(self, item: int) -> Message:
        """A retained message."""
        return unpack(self.store.read(item))

    # Recovery

    def recover(self, items: Iterable[Item], window: int) -> RecoveredState:
        """Rebuild the state from the live items, which come in the order of their identifiers.

        A session's state may come after what it owns, because it is written anew whenever it changes.
        """
        found = RecoveredState()
        sessions = found.sessions
        known: set[int] = set()
        handlers: dict[int, Callable[[Session, Item], None]] = {
            SESSION: self._recover_session,
            DELIVERY: self._recover_delivery,
            RELEASE: self._recover_delivery,
            INCOMING: self._recover_incoming,
            LEDGER: self._recover_ledger,
        }
        for item in items:
            kind = item.kind
            if kind == BODY:
                self._bodies.setdefault(item.id, 0)
            elif kind == RETAINED:
                expires: float = _RETAINED.unpack_from(item.meta)[0]
                found.retained.append((item.id, item.meta[_RETAINED.size :].decode(), expires))
            elif kind == INTEREST or kind in handlers:
                session = sessions.get(item.owner)
                if session is None:
                    session = sessions[item.owner] = Session(item.owner, (0, "", ""), "", window, self.depth)
                    session.durable = True
                if kind == INTEREST:
                    found.interests.append(_interest(session, item))
                else:
                    handlers[kind](session, item)
                if kind == SESSION:
                    known.add(item.owner)
            else:
                found.other.append(item)
        self._drop_orphans(found, known)
        self.next_session = max(sessions, default=0) + 1
        return found

    def _recover_session(self, session: Session, item: Item) -> None:
        state = json.loads(item.meta)
        kind, name, client_id, vehicle, expiry, ends, window, delay, due, number, attached, *later = state
        if session.item:
            self._stale.append(session.item)  # the crash came between a newer state and the drop of the older
        session.item = item.id
        session.name((kind, name, client_id))
        session.vehicle = vehicle
        session.attached = attached
        session.expiry = expiry
        session.ends = ends
        session.outbound.window = window
        session.will_delay = delay
        session.will_due = due
        session.outbound.next_number = max(session.outbound.next_number, number)
        session.outbound.sent = later[0] if later else number  # journals of version 0.1.0 do not have it
        will = self.store.read(item.id)
        session.will = unpack(will) if will else None

    def _recover_delivery(self, session: Session, item: Item) -> None:
        delivery = _delivery(item)
        if delivery.body:
            self._bodies[delivery.body] = self._bodies.get(delivery.body, 0) + 1
        session.outbound.restore(delivery)

    def _recover_incoming(self, session: Session, item: Item) -> None:
        session.incoming[_INCOMING.unpack(item.meta)[0]] = item.id

    def _recover_ledger(self, session: Session, item: Item) -> None:
        if session.ledger is not None:
            self._stale.append(session.ledger.item)
        ledger = Ledger(item.meta[_LEDGER.size :].decode(), *_LEDGER.unpack_from(item.meta))
        ledger.item = item.id
        session.ledger = ledger

    def _drop_orphans(self, found: RecoveredState, known: set[int]) -> None:
        for owner in [owner for owner in found.sessions if owner not in known]:
            session = found.sessions.pop(owner)
            self.forget_deliveries(session)
            session.outbound.discard()
            for item in session.incoming.values():
                self.store.drop(item)
            if session.ledger is not None:
                self.store.drop(session.ledger.item)
            for interest in found.interests:
                if interest.session is session:
                    self.store.drop(interest.item)
            found.interests = [interest for interest in found.interests if interest.session is not session]
        for body in [body for body, count in self._bodies.items() if count == 0]:
            del self._bodies[body]
            self.store.drop(body)
        for item in self._stale:
            self.store.drop(item)
        self._stale.clear()


def _meta(delivery: Delivery) -> bytes:
    """The delivery's record; its count is that of the subscription identifiers. They follow, then the shared group."""
    identifiers = delivery.subscription_ids
    meta = SHARED.pack(delivery, len(identifiers))
    if identifiers:
        meta += struct.pack(f"!{len(identifiers)}I", *identifiers)
    return meta + delivery.group.encode() if delivery.group else meta


def _delivery(item: Item) -> Delivery:
    delivery, count = SHARED.unpack(item)
    if count:
        delivery.subscription_ids = struct.unpack_from(f"!{count}I", item.meta, SHARED.size)
    delivery.group = item.meta[SHARED.size + 4 * count :].decode()
    if item.kind == RELEASE:
        delivery.state = RELEASED
    return delivery


def _interest(session: Session, item: Item) -> Interest:
    options, identifier = _INTEREST.unpack_from(item.meta)
    owed = _OWED.unpack_from(item.meta, _INTEREST.size) if options & _IS_OWED else (0, 0)
    filter = item.meta[_INTEREST.size + (_OWED.size if options & _IS_OWED else 0) :].decode()
    no_local, as_published, handling = bool(options & 0x04), bool(options & 0x08), options >> 4 & 0x03
    interest = Interest(session, Subscription(filter, options & 0x03, no_local, as_published, handling), identifier)
    interest.item = item.id
    interest.owed_after, interest.owed_until = owed
    return interest

