"""Reads the broker's journal items after a restart.

It knows the layouts of the items and what a crash may leave of them: never which part needs the result, which
``Recovery`` knows. What always holds:

* it reads no message body (except wills, which are part of the state of their sessions);
* it drops what a crash has left of something larger: the items of a session that has no state, a body that nothing
  shares, the older of two states;
* what it drops because another item is missing, as in a salvaged journal, is counted in ``Persistence.lost``.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final, final

from mesh.broker.ledger import Ledger
from mesh.broker.letter import Letter
from mesh.broker.persistence import Persistence
from mesh.broker.place import Place
from mesh.broker.records import (
    BODY,
    DEAD_LETTER,
    DELIVERY,
    DUE_META,
    FAN_OUT,
    FAN_OUT_META,
    HAS_DUE,
    INCOMING,
    INCOMING_META,
    INTEREST,
    INTEREST_META,
    LEDGER,
    LEDGER_META,
    LETTER_META,
    RELEASE,
    RETAINED,
    RETAINED_META,
    SESSION,
    TOMBSTONE,
    TOMBSTONE_META,
    letter_texts,
    origin_of,
    retained_sender,
    retained_topic,
)
from mesh.broker.sender import Sender
from mesh.broker.session import Interest, Session
from mesh.session.message import unpack
from mesh.session.outbound import RELEASED, Delivery
from mesh.session.record import SHARED
from mesh.session.store import Item
from mesh.wire.packets import Subscription

_PORTION: Final = 256  # items that are recovered between two looks at the clock
_ITEM: Final = 4  # steps for one of them, see ``work``


@final
class RecoveredState:
    """What ``ItemReader`` finds. ``retained`` is (item, topic, expiry time, sender), ``tombstones`` (item, topic, time
    of the deletion); ``letters`` are in the order of their items; ``fan_outs`` has the item and the place of each by
    its body; ``other`` are the items of unknown kinds."""

    __slots__ = ("fan_outs", "interests", "letters", "other", "retained", "sessions", "tombstones")

    def __init__(self) -> None:
        self.sessions: dict[int, Session] = {}
        self.interests: list[Interest] = []
        self.retained: list[tuple[int, str, float, Sender | None]] = []
        self.tombstones: list[tuple[int, str, float]] = []
        self.letters: list[Letter] = []
        self.fan_outs: dict[int, tuple[int, Place]] = {}
        self.other: list[Item] = []


@final
class ItemReader:
    """Reads into ``found``, and restores what ``persistence`` counts. ``window``: of sessions until they connect."""

    __slots__ = ("_bodies", "_groups", "_persistence", "_stale", "_store", "_window", "found")

    def __init__(self, persistence: Persistence, window: int) -> None:
        self._persistence = persistence
        self._store = persistence.store
        self._bodies = persistence.bodies
        self._window = window
        self._groups: dict[bytes, str] = {}  # one text for all deliveries of a group
        self._stale: list[int] = []  # items to be dropped at the end
        self.found = RecoveredState()

    def read(self, items: Iterable[Item]) -> Iterator[int]:
        """Rebuild the state from the live items, which are in the order of their identifiers, in slices: yields now and
        then, with the steps of work that were done. Call it once.

        A session's state may follow the items that it owns, because it is rewritten whenever it changes.
        """
        found = self.found
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
                expires: float = RETAINED_META.unpack_from(item.meta)[0]
                found.retained.append((item.id, retained_topic(item.meta), expires, retained_sender(item.meta)))
            elif kind == TOMBSTONE:
                deleted: float = TOMBSTONE_META.unpack_from(item.meta)[0]
                found.tombstones.append((item.id, item.meta[TOMBSTONE_META.size :].decode(), deleted))
            elif kind == DEAD_LETTER:
                self._recover_letter(item)
            elif kind == FAN_OUT:
                self._recover_fan_out(item)
            elif kind == INTEREST or kind in handlers:
                session = sessions.get(item.owner)
                if session is None:
                    session = sessions[item.owner] = self._session(item.owner)
                if kind == INTEREST:
                    found.interests.append(_interest(session, item))
                else:
                    handlers[kind](session, item)
                if kind == SESSION:
                    known.add(item.owner)
            else:
                found.other.append(item)
        self._groups.clear()
        yield from self._drop_orphans(known)
        self._persistence.next_session = max(sessions, default=0) + 1

    def _session(self, owner: int) -> Session:
        session = Session(owner, (0, "", ""), "", self._window, self._persistence.depth)
        session.durable = True
        return session

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
        session.roles = tuple([sys.intern(role) for role in later[1]]) if len(later) > 1 else ()
        if len(later) > 2 and later[2]:
            session.origin = origin_of(later[2])
        if len(later) > 3:
            session.provider = sys.intern(later[3])
        will = self._store.read(item.id)
        session.will = unpack(will) if will else None

    def _recover_delivery(self, session: Session, item: Item) -> None:
        delivery = self._delivery(item)
        if delivery.body:
            if delivery.body not in self._bodies:  # bodies come first, in the order of the identifiers
                self._stale.append(item.id)
                self._persistence.lost += 1
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

    def _recover_letter(self, item: Item) -> None:
        time, reason, body, size, _ = LETTER_META.unpack_from(item.meta)
        share, topic = letter_texts(item.meta)
        letter = Letter(reason, time, share, topic, size)
        letter.item = item.id
        letter.body = body
        if body:
            if body not in self._bodies:
                self._stale.append(item.id)
                self._persistence.lost += 1
                return
            self._bodies[body] += 1
        self.found.letters.append(letter)

    def _recover_fan_out(self, item: Item) -> None:
        place = Place()
        place.body, place.source, place.session = FAN_OUT_META.unpack_from(item.meta)
        rest = item.meta[FAN_OUT_META.size :]
        if rest:
            place.group, place.plain, place.groups = json.loads(rest)
        older = self.found.fan_outs.get(place.body)
        if older is not None:
            self._stale.append(older[0])
        elif place.body in self._bodies:
            self._bodies[place.body] += 1
        else:
            self._stale.append(item.id)
            self._persistence.lost += 1
            return
        self.found.fan_outs[place.body] = (item.id, place)

    def _recover_incoming(self, session: Session, item: Item) -> None:
        session.incoming[INCOMING_META.unpack(item.meta)[0]] = item.id

    def _recover_ledger(self, session: Session, item: Item) -> None:
        if session.ledger is not None:
            self._stale.append(session.ledger.item)
        ledger = Ledger(item.meta[LEDGER_META.size :].decode(), *LEDGER_META.unpack_from(item.meta))
        ledger.item = item.id
        session.ledger = ledger

    def _drop_orphans(self, known: set[int]) -> Iterator[int]:
        """Drop the items of sessions that have no state, and the bodies that no delivery has."""
        found = self.found
        orphans = {owner for owner in found.sessions if owner not in known}
        for owner in orphans:
            session = found.sessions.pop(owner)
            self._persistence.lost += len(session.outbound)
            while True:
                delivery = session.outbound.drop_any()
                if delivery is None:
                    break
                self._persistence.forget(delivery)
                yield _ITEM
            for item in session.incoming.values():
                self._store.drop(item)
            if session.ledger is not None:
                self._store.drop(session.ledger.item)
            yield _ITEM
        if orphans:
            for interest in found.interests:
                if interest.session.id in orphans:
                    self._store.drop(interest.item)
                    yield _ITEM
            found.interests = [interest for interest in found.interests if interest.session.id not in orphans]
        for body in [body for body, count in self._bodies.items() if count == 0]:
            del self._bodies[body]
            self._store.drop(body)
            yield _ITEM
        for item in self._stale:
            self._store.drop(item)
        self._stale.clear()


def _interest(session: Session, item: Item) -> Interest:
    options, identifier = INTEREST_META.unpack_from(item.meta)
    backlog = DUE_META.unpack_from(item.meta, INTEREST_META.size) if options & HAS_DUE else (0, 0)
    filter = item.meta[INTEREST_META.size + (DUE_META.size if options & HAS_DUE else 0) :].decode()
    no_local, as_published, handling = bool(options & 0x04), bool(options & 0x08), options >> 4 & 0x03
    interest = Interest(session, Subscription(filter, options & 0x03, no_local, as_published, handling), identifier)
    interest.item = item.id
    interest.due_after, interest.due_until = backlog
    return interest
