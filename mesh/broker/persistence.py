"""Writes the state of the broker to the journal, and recovers it.

The only place that knows the form of the broker's journal items. It must never decide what is sent to whom. What always
holds:

* a delivery, a session or a subscription with an ``item`` is in the journal, and only this class drops it from there;
* a body that deliveries, dead letters or a fan-out share is dropped with the last of them;
* recovery reads no message body (except wills, which are part of the state of their sessions).

A session is the ``owner`` of its items. Recovery drops the items of a session that has no state in the journal (a crash
between its parts).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final, final

from mesh.broker.ledger import Ledger
from mesh.broker.letter import Letter
from mesh.broker.place import Place
from mesh.broker.session import Interest, Session
from mesh.session.message import Message, pack, unpack
from mesh.session.outbound import RELEASED, Delivery, Depth
from mesh.session.record import SHARED
from mesh.session.store import Item, Store
from mesh.wire.packets import Subscription

_RESERVED: Final = 1024  # numbers of deliveries: one record of the session in so many messages costs nothing

# Kinds of items. Those from 16 on belong to the core.
SESSION: Final = 1
INTEREST: Final = 2
DELIVERY: Final = 3
BODY: Final = 4
RELEASE: Final = 5
INCOMING: Final = 6
LEDGER: Final = 8
RETAINED: Final = 9
DEAD_LETTER: Final = 10
TOMBSTONE: Final = 11  # of a fleet-wide topic whose retained message was deleted
FAN_OUT: Final = 12  # of a message for many receivers, some of which may not have it

_PORTION: Final = 256  # items that are recovered between two looks at the clock
_ITEM: Final = 4  # steps for one of them, see ``work``

# options, subscription identifier; then the retained backlog, if there is any; then the filter
_INTEREST: Final = struct.Struct("!BI")
_DUE: Final = struct.Struct("!QQ")  # the backlog: after which item, up to which item
_HAS_DUE: Final = 0x40  # in the options
_INCOMING: Final = struct.Struct("!H")
_LEDGER: Final = struct.Struct("!HH")  # first and last identifier; then the instance
_RETAINED: Final = struct.Struct("!d")  # when it expires; then the topic
_TOMBSTONE: Final = struct.Struct("!d")  # when the message was deleted; then the topic
_FAN_OUT: Final = struct.Struct("!QQQ")  # body, session of the publisher, last session; then JSON of the rest
_LETTER: Final = struct.Struct("!dBQIH")  # time, reason, body, size, length of the share; then the share, the topic


@final
class RecoveredState:
    """The result of ``Persistence.recover``. ``retained`` is (item, topic, expiry time), ``tombstones`` (item, topic,
    time of the deletion); ``letters`` are in the order of their items; ``fan_outs`` has the item and the
    place of each by its body; ``other`` are the items of unknown kinds.
    """

    __slots__ = ("fan_outs", "interests", "letters", "other", "retained", "sessions", "tombstones")

    def __init__(self) -> None:
        self.sessions: dict[int, Session] = {}
        self.interests: list[Interest] = []
        self.retained: list[tuple[int, str, float]] = []
        self.tombstones: list[tuple[int, str, float]] = []
        self.letters: list[Letter] = []
        self.fan_outs: dict[int, tuple[int, Place]] = {}
        self.other: list[Item] = []


@final
class Persistence:
    """Writes the broker's state to ``store``. ``depth`` counts the deliveries of all sessions; ``lost`` those that
    recovery dropped because their body or their session is missing, as in a salvaged journal. ``letter_read`` is called
    with the item of a dead letter whose reader has acknowledged it."""

    __slots__ = ("_bodies", "_groups", "_stale", "depth", "letter_read", "lost", "next_session", "store")

    def __init__(self, store: Store) -> None:
        self.letter_read: Callable[[int], None] = _ignore
        self.store = store
        self.depth = Depth()
        self.next_session = 1
        self.lost = 0
        self._bodies: dict[int, int] = {}  # shared bodies -> how many deliveries have them
        self._groups: dict[bytes, str] = {}  # of recovered deliveries: one text for all of a group
        self._stale: list[int] = []  # items found at recovery, to be dropped at its end

    def new_id(self) -> int:
        """An owner number for a new session."""
        id = self.next_session
        self.next_session = id + 1
        return id

    # Sessions

    def keep_session(self, session: Session) -> None:
        """Write the session's state; the newer item replaces the older.

        It reserves the numbers of the next deliveries of a connected session. The connection may outlive this process,
        and a repeated acknowledgement of a delivery that is forgotten by then must not end a new one with its number.
        """
        kind, name, client_id = session.key
        outbound = session.outbound
        connected = session.connection is not None
        outbound.reserved = outbound.next_number + _RESERVED if connected else outbound.next_number
        meta = json.dumps([
            kind, name, client_id, session.vehicle, session.expiry, session.ends, outbound.window,
            session.will_delay, session.will_due, outbound.reserved, connected, outbound.sent,
        ]).encode()  # fmt: skip
        will = b"" if session.will is None else pack(session.will)
        old = session.item
        session.item = self.store.append(SESSION, session.id, meta, will)
        if old:
            self.store.drop(old)

    def forget_state(self, session: Session) -> None:
        """Drop the session's state, after all its other items: recovery takes items of a session without a state for
        lost."""
        ledger = session.ledger
        if ledger is not None and ledger.item:
            self.store.drop(ledger.item)
            ledger.item = 0
        if session.item:
            self.store.drop(session.item)
            session.item = 0

    def keep_interest(self, interest: Interest) -> None:
        """Write one subscription."""
        subscription = interest.subscription
        options = (
            subscription.qos
            | subscription.no_local << 2
            | subscription.retain_as_published << 3
            | subscription.retain_handling << 4
            | (_HAS_DUE if interest.due_until else 0)
        )
        meta = _INTEREST.pack(options, interest.identifier)
        if interest.due_until:
            meta += _DUE.pack(interest.due_after, interest.due_until)
        interest.item = self.store.append(INTEREST, interest.session.id, meta + subscription.filter.encode(), b"")

    def keep_backlog(self, interest: Interest, after: int, until: int) -> None:
        """Write the retained backlog of a subscription; the newer item replaces the older."""
        old = interest.item
        interest.due_after, interest.due_until = after, until
        self.keep_interest(interest)
        if old:
            self.store.drop(old)

    def forget_interest(self, interest: Interest) -> None:
        """Drop one subscription."""
        if interest.item:
            self.store.drop(interest.item)
            interest.item = 0

    # Deliveries

    def share(self, message: Message) -> None:
        """Write the body once for several deliveries, and hold it until ``unshare``: the first delivery may end before
        the last is made."""
        message.body = self.store.append(BODY, 0, b"", pack(message))
        self._bodies[message.body] = 1

    def keep(self, session: Session, delivery: Delivery, message: Message) -> None:
        """Write a delivery, with its message unless ``message.body`` has it already."""
        body = message.body
        if body:
            self._bodies[body] += 1
            delivery.body = body
            delivery.item = self.store.append(DELIVERY, session.id, _meta(delivery), b"")
        else:
            delivery.item = self.store.append(DELIVERY, session.id, _meta(delivery), pack(message))
        delivery.position = delivery.item
        if delivery.number >= session.outbound.reserved and session.connection is not None:
            self.keep_session(session)

    def load(self, delivery: Delivery) -> Message:
        """The message of a delivery, read from the journal if it is not in memory."""
        message = delivery.message
        if message is None:
            message = unpack(self.store.read(delivery.body or delivery.item))
        return message

    def release(self, session: Session, delivery: Delivery) -> None:
        """Record a PUBREC: from now on only PUBREL is sent, also after a crash [MQTT-4.3.3-8]."""
        delivery.state = RELEASED
        session.outbound.unload(delivery)
        if delivery.item:
            old, body = delivery.item, delivery.body
            delivery.body = 0
            delivery.item = self.store.append(RELEASE, session.id, _meta(delivery), b"")
            delivery.position = delivery.item
            self._drop(old, body)

    def forget(self, delivery: Delivery) -> None:
        """Drop a delivery that has ended."""
        if delivery.item:
            self._drop(delivery.item, delivery.body)
            delivery.item = 0
            delivery.body = 0
        elif delivery.body:  # a dead letter that was lent to its reader (``Courier.lend``)
            self.letter_read(delivery.body)
            delivery.body = 0

    def _drop(self, item: int, body: int) -> None:
        self.store.drop(item)
        if body:
            self._release_body(body)

    def _release_body(self, body: int) -> None:
        left = self._bodies[body] - 1
        if left:
            self._bodies[body] = left
        else:
            del self._bodies[body]
            self.store.drop(body)

    def unshare(self, message: Message) -> None:
        """End ``share``: all deliveries of the body are made. A body without deliveries is dropped."""
        self._release_body(message.body)
        message.body = 0

    # Messages for many receivers

    def keep_fan_out(self, old: int, place: Place) -> int:
        """Write how far a message has come; it replaces the item ``old`` (0: none). Returns the new one."""
        meta = _FAN_OUT.pack(place.body, place.source, place.session)
        if place.group or not place.plain or place.groups is not None:
            meta += json.dumps([place.group, place.plain, place.groups]).encode()
        item = self.store.append(FAN_OUT, 0, meta, b"")
        if old:
            self.store.drop(old)
        return item

    def forget_fan_out(self, item: int, message: Message) -> None:
        """All receivers have the message. Its body ends with the last delivery."""
        self.store.drop(item)
        self.unshare(message)

    # Dead letters

    def keep_letter(self, letter: Letter, message: Message) -> None:
        """Write a dead letter, with its message unless ``message.body`` has it already."""
        letter.body = message.body
        share = letter.share.encode()
        head = _LETTER.pack(letter.time, letter.reason, letter.body, letter.size, len(share))
        meta = b"".join((head, share, letter.topic.encode()))
        if letter.body:
            self._bodies[letter.body] += 1
            letter.item = self.store.append(DEAD_LETTER, 0, meta, b"")
        else:
            letter.item = self.store.append(DEAD_LETTER, 0, meta, pack(message))

    def load_letter(self, letter: Letter) -> Message:
        """Read the message of a dead letter."""
        return unpack(self.store.read(letter.body or letter.item))

    def forget_letter(self, letter: Letter) -> None:
        """Drop a dead letter."""
        self._drop(letter.item, letter.body)

    # QoS 2 identifiers, retained messages

    def keep_incoming(self, session: Session, packet_id: int) -> int:
        """Write that the client's QoS 2 message ``packet_id`` was accepted; returns the journal item."""
        return self.store.append(INCOMING, session.id, _INCOMING.pack(packet_id), b"")

    def keep_ledger(self, session: Session, ledger: Ledger) -> None:
        """Write which messages of a core were taken; the newer item replaces the older."""
        old = ledger.item
        meta = _LEDGER.pack(ledger.first, ledger.last) + ledger.instance.encode()
        ledger.item = self.store.append(LEDGER, session.id, meta, b"")
        ledger.touched = False
        if old:
            self.store.drop(old)

    def keep_retained(self, message: Message) -> int:
        """Write a retained message; returns its item."""
        return self.store.append(RETAINED, 0, _RETAINED.pack(message.expires) + message.topic_bytes, pack(message))

    def keep_tombstone(self, topic: str, time: float) -> int:
        """Write that the retained message of a topic was deleted; returns the item."""
        return self.store.append(TOMBSTONE, 0, _TOMBSTONE.pack(time) + topic.encode(), b"")

    def drop(self, item: int) -> None:
        """Drop a QoS 2 identifier, a retained message or a tombstone."""
        self.store.drop(item)

    def read(self, item: int) -> Message:
        """Read a retained message, or a body that deliveries share."""
        return unpack(self.store.read(item))

    # Recovery

    def recover(self, items: Iterable[Item], window: int) -> RecoveredState:
        """Rebuild the state from the live items, which are in the order of their identifiers."""
        found = RecoveredState()
        for _ in self.recovery(items, window, found):
            pass
        return found

    def recovery(self, items: Iterable[Item], window: int, found: RecoveredState) -> Iterator[int]:
        """As ``recover``, in slices, into ``found``: yields now and then, with the steps of work that were done.

        A session's state may follow the items that it owns, because it is rewritten whenever it changes.
        """
        sessions = found.sessions
        known: set[int] = set()
        handlers: dict[int, Callable[[Session, Item], None]] = {
            SESSION: self._recover_session,
            DELIVERY: self._recover_delivery,
            RELEASE: self._recover_delivery,
            INCOMING: self._recover_incoming,
            LEDGER: self._recover_ledger,
        }
        for count, item in enumerate(items):
            if count % _PORTION == 0:
                yield _PORTION * _ITEM
            kind = item.kind
            if kind == BODY:
                self._bodies.setdefault(item.id, 0)
            elif kind == RETAINED:
                expires: float = _RETAINED.unpack_from(item.meta)[0]
                found.retained.append((item.id, retained_topic(item.meta), expires))
            elif kind == TOMBSTONE:
                deleted: float = _TOMBSTONE.unpack_from(item.meta)[0]
                found.tombstones.append((item.id, item.meta[_TOMBSTONE.size :].decode(), deleted))
            elif kind == DEAD_LETTER:
                self._recover_letter(found, item)
            elif kind == FAN_OUT:
                self._recover_fan_out(found, item)
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
        self._groups.clear()
        yield from self._drop_orphans(found, known)
        self.next_session = max(sessions, default=0) + 1

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
        session.outbound.reserved = session.outbound.next_number
        session.outbound.sent = later[0] if later else number  # journals of version 0.1.0 do not have it
        will = self.store.read(item.id)
        session.will = unpack(will) if will else None

    def _recover_delivery(self, session: Session, item: Item) -> None:
        delivery = self._delivery(item)
        if delivery.body:
            if delivery.body not in self._bodies:  # bodies come first, in the order of the identifiers
                self._stale.append(item.id)
                self.lost += 1
                return
            self._bodies[delivery.body] += 1
        session.outbound.restore(delivery)

    def _delivery(self, item: Item) -> Delivery:
        delivery, count = SHARED.unpack(item)
        if count:
            delivery.subscription_ids = struct.unpack_from(f"!{count}I", item.meta, SHARED.size)
        group = item.meta[SHARED.size + 4 * count :]
        if group:
            text = self._groups.get(group)
            if text is None:
                text = self._groups[group] = group.decode()
            delivery.group = text
        if item.kind == RELEASE:
            delivery.state = RELEASED
        return delivery

    def _recover_letter(self, found: RecoveredState, item: Item) -> None:
        time, reason, body, size, length = _LETTER.unpack_from(item.meta)
        share, topic = _letter_texts(item.meta, length)
        letter = Letter(reason, time, share, topic, size)
        letter.item = item.id
        letter.body = body
        if body:
            if body not in self._bodies:
                self._stale.append(item.id)
                self.lost += 1
                return
            self._bodies[body] += 1
        found.letters.append(letter)

    def _recover_fan_out(self, found: RecoveredState, item: Item) -> None:
        place = Place()
        place.body, place.source, place.session = _FAN_OUT.unpack_from(item.meta)
        rest = item.meta[_FAN_OUT.size :]
        if rest:
            place.group, place.plain, place.groups = json.loads(rest)
        older = found.fan_outs.get(place.body)
        if older is not None:
            self._stale.append(older[0])
        elif place.body in self._bodies:
            self._bodies[place.body] += 1
        else:
            self._stale.append(item.id)
            self.lost += 1
            return
        found.fan_outs[place.body] = (item.id, place)

    def _recover_incoming(self, session: Session, item: Item) -> None:
        session.incoming[_INCOMING.unpack(item.meta)[0]] = item.id

    def _recover_ledger(self, session: Session, item: Item) -> None:
        if session.ledger is not None:
            self._stale.append(session.ledger.item)
        ledger = Ledger(item.meta[_LEDGER.size :].decode(), *_LEDGER.unpack_from(item.meta))
        ledger.item = item.id
        session.ledger = ledger

    def _drop_orphans(self, found: RecoveredState, known: set[int]) -> Iterator[int]:
        """Drop the items of sessions that have no state, and the bodies that no delivery has."""
        orphans = {owner for owner in found.sessions if owner not in known}
        for owner in orphans:
            session = found.sessions.pop(owner)
            self.lost += len(session.outbound)
            while True:
                delivery = session.outbound.drop_any()
                if delivery is None:
                    break
                self.forget(delivery)
                yield _ITEM
            for item in session.incoming.values():
                self.store.drop(item)
            if session.ledger is not None:
                self.store.drop(session.ledger.item)
            yield _ITEM
        if orphans:
            for interest in found.interests:
                if interest.session.id in orphans:
                    self.store.drop(interest.item)
                    yield _ITEM
            found.interests = [interest for interest in found.interests if interest.session.id not in orphans]
        for body in [body for body, count in self._bodies.items() if count == 0]:
            del self._bodies[body]
            self.store.drop(body)
            yield _ITEM
        for item in self._stale:
            self.store.drop(item)
        self._stale.clear()


def session_key(meta: bytes) -> tuple[str, str]:
    """The name (of a vehicle, or of a back end's user) and the client id in the record of a session."""
    state = json.loads(meta)
    return str(state[1]), str(state[2])


def retained_topic(meta: bytes) -> str:
    """The topic in the record of a retained message."""
    return meta[_RETAINED.size :].decode()


def letter_texts(meta: bytes) -> tuple[str, str]:
    """The share and the topic in the record of a dead letter."""
    return _letter_texts(meta, _LETTER.unpack_from(meta)[4])


def _letter_texts(meta: bytes, length: int) -> tuple[str, str]:
    end = _LETTER.size + length
    return meta[_LETTER.size : end].decode(), meta[end:].decode()


def _meta(delivery: Delivery) -> bytes:
    """The delivery's record, with the number of subscription identifiers; then these, then the shared group."""
    identifiers = delivery.subscription_ids
    meta = SHARED.pack(delivery, len(identifiers))
    if identifiers:
        meta += struct.pack(f"!{len(identifiers)}I", *identifiers)
    return meta + delivery.group.encode() if delivery.group else meta


def _interest(session: Session, item: Item) -> Interest:
    options, identifier = _INTEREST.unpack_from(item.meta)
    backlog = _DUE.unpack_from(item.meta, _INTEREST.size) if options & _HAS_DUE else (0, 0)
    filter = item.meta[_INTEREST.size + (_DUE.size if options & _HAS_DUE else 0) :].decode()
    no_local, as_published, handling = bool(options & 0x04), bool(options & 0x08), options >> 4 & 0x03
    interest = Interest(session, Subscription(filter, options & 0x03, no_local, as_published, handling), identifier)
    interest.item = item.id
    interest.due_after, interest.due_until = backlog
    return interest


def _ignore(_item: int) -> None:
    """There are no dead letters."""
