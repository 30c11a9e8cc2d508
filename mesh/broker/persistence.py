"""Writes the state of the broker to the journal.

It knows the layouts of the journal's items (``records``), which no part but ``ItemReader`` knows besides: it must never
decide what is sent to whom. What always holds:

* a delivery, a session or a subscription with an ``item`` is in the journal, and from recovery on only this class
  drops it from there;
* a body that deliveries, dead letters or a fan-out share is dropped with the last of them.

A session is the ``owner`` of its items. Recovery drops the items of a session that has no state in the journal (a crash
between its parts).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, final

from mesh.broker.ledger import Ledger
from mesh.broker.letter import Letter
from mesh.broker.place import Place
from mesh.broker.principal import BACKEND
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
    SESSION,
    TOMBSTONE,
    TOMBSTONE_META,
    delivery_meta,
    origin_state,
    retained_meta,
)
from mesh.broker.sender import Sender
from mesh.broker.session import Interest, Session
from mesh.session.message import Message, pack, unpack
from mesh.session.outbound import RELEASED, Delivery, Depth
from mesh.session.store import Store

_RESERVED: Final = 1024  # numbers of deliveries: one record of the session in so many messages costs nothing


@final
class Persistence:
    """Writes the broker's state to ``store``. ``depth`` counts the deliveries of all sessions; ``lost`` those that
    recovery dropped because their body or their session is missing, as in a salvaged journal. ``letter_read`` is called
    with the item of a dead letter whose reader has acknowledged it."""

    __slots__ = ("bodies", "depth", "letter_read", "lost", "next_session", "store")

    def __init__(self, store: Store) -> None:
        self.letter_read: Callable[[int], None] = _ignore
        self.store = store
        self.depth = Depth()
        self.next_session = 1
        self.lost = 0
        self.bodies: dict[int, int] = {}  # shared bodies -> how many deliveries have them

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
        state: list[object] = [
            kind, name, client_id, session.vehicle, session.expiry, session.ends, outbound.window,
            session.will_delay, session.will_due, outbound.reserved, connected, outbound.sent,
        ]  # fmt: skip
        origin = origin_state(session)
        # Only a back end can lose more than its roles by what its provider says later.
        provider = session.provider if session.roles or kind == BACKEND else ""
        if session.roles or origin or provider:
            state.append(session.roles)
        if origin or provider:
            state.append(origin)
        if provider:
            state.append(provider)
        meta = json.dumps(state).encode()
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
            | (HAS_DUE if interest.due_until else 0)
        )
        meta = INTEREST_META.pack(options, interest.identifier)
        if interest.due_until:
            meta += DUE_META.pack(interest.due_after, interest.due_until)
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
        self.bodies[message.body] = 1

    def keep(self, session: Session, delivery: Delivery, message: Message) -> None:
        """Write a delivery, with its message unless ``message.body`` has it already."""
        body = message.body
        if body:
            self.bodies[body] += 1
            delivery.body = body
            delivery.item = self.store.append(DELIVERY, session.id, delivery_meta(delivery), b"")
        else:
            delivery.item = self.store.append(DELIVERY, session.id, delivery_meta(delivery), pack(message))
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
            delivery.item = self.store.append(RELEASE, session.id, delivery_meta(delivery), b"")
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
        left = self.bodies[body] - 1
        if left:
            self.bodies[body] = left
        else:
            del self.bodies[body]
            self.store.drop(body)

    def unshare(self, message: Message) -> None:
        """End ``share``: all deliveries of the body are made. A body without deliveries is dropped."""
        self._release_body(message.body)
        message.body = 0

    # Messages for many receivers

    def keep_fan_out(self, old: int, place: Place) -> int:
        """Write how far a message has come; it replaces the item ``old`` (0: none). Returns the new one."""
        meta = FAN_OUT_META.pack(place.body, place.source, place.session)
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
        head = LETTER_META.pack(letter.time, letter.reason, letter.body, letter.size, len(share))
        meta = b"".join((head, share, letter.topic.encode()))
        if letter.body:
            self.bodies[letter.body] += 1
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
        return self.store.append(INCOMING, session.id, INCOMING_META.pack(packet_id), b"")

    def keep_ledger(self, session: Session, ledger: Ledger) -> None:
        """Write which messages of a core were taken; the newer item replaces the older."""
        old = ledger.item
        meta = LEDGER_META.pack(ledger.first, ledger.last) + ledger.instance.encode()
        ledger.item = self.store.append(LEDGER, session.id, meta, b"")
        ledger.touched = False
        if old:
            self.store.drop(old)

    def keep_retained(self, message: Message, sender: Sender | None = None) -> int:
        """Write a retained message, with the client that published it, if one did; returns its item."""
        meta = retained_meta(message.expires, message.topic_bytes, sender)
        return self.store.append(RETAINED, 0, meta, pack(message))

    def keep_tombstone(self, topic: str, time: float) -> int:
        """Write that the retained message of a topic was deleted; returns the item."""
        return self.store.append(TOMBSTONE, 0, TOMBSTONE_META.pack(time) + topic.encode(), b"")

    def drop(self, item: int) -> None:
        """Drop a QoS 2 identifier, a retained message or a tombstone."""
        self.store.drop(item)

    def read(self, item: int) -> Message:
        """Read a retained message, or a body that deliveries share."""
        return unpack(self.store.read(item))

def _ignore(_item: int) -> None:
    """There are no dead letters."""
