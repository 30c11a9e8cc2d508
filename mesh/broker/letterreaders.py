"""The readers of dead letters: sessions of back ends and cores that are subscribed to ``$dead-letters/…``.

It knows readers, their filters and letters; it must never know why a message became a letter. What always holds:

* a letter is lent to one durable reader at a time, when its queue has room, and ends when that reader has acknowledged
  it: no letter is lost by a crash, a lost connection or the end of a session;
* other readers get copies of new letters, as of any message;
* no vehicle reads letters; a letter that one reader cannot take is offered to others;
* a letter that is too large for a reader is offered to it once on each of its connections.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from mesh.broker.counters import BrokerCounters
from mesh.broker.courier import Courier
from mesh.broker.deadletters import DeadLetters
from mesh.broker.letter import TOPIC, Letter, letter_message, letter_topic
from mesh.broker.notices import Notices
from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.room import Room
from mesh.broker.session import Interest, Session
from mesh.broker.settings import Settings
from mesh.broker.subscriptions import Subscriptions
from mesh.session.fifo import Fifo
from mesh.session.message import NEVER, Message
from mesh.session.outbound import Delivery
from mesh.wire.encode import encode_properties
from mesh.wire.properties import Properties
from mesh.wire.reasons import PACKET_TOO_LARGE, name_of
from mesh.wire.topics import matches, split_shared

_PORTION: Final = 64  # letters that a reader gets, and that are looked at for it, in one turn
_BYTES: Final = 1 << 20  # that may wait for a reader: letters in its queue are in memory
_COPIES: Final = 256  # of new letters, in one turn
_LOOKED_AT: Final = 64  # readers in one turn
_PAUSE: Final = 10.0  # seconds until a core that refused a letter is offered one again


@final
class Reader:
    """One session with its filters for letters. ``after``: the letters up to this item were offered to it, or match
    none of its filters. ``lists``: it has the filter ``$dead-letters``, so its letters come between two messages that
    name the node; ``begun``: it has got the first of these. ``too_large``: items of letters that it cannot take on this
    connection."""

    __slots__ = ("after", "begun", "filters", "identifiers", "lists", "paused", "reliable", "session", "too_large")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.filters: list[str] = []
        self.identifiers: tuple[int, ...] = ()
        self.lists = False
        self.begun = False
        self.reliable = False  # one of the filters has QoS 1 or 2
        self.after = 0
        self.paused = 0.0  # until then it gets none, in seconds since 1970
        self.too_large: set[int] = set()

    def add(self, interest: Interest) -> None:
        """One of its subscriptions."""
        filter = split_shared(interest.subscription.filter)[1]
        if filter == TOPIC:
            self.lists = True
        else:
            self.filters.append(filter)
            self.reliable = self.reliable or interest.subscription.qos > 0
        if interest.identifier:
            self.identifiers = (*self.identifiers, interest.identifier)

    @property
    def takes(self) -> bool:
        """Whether letters are lent to it. Else it gets copies."""
        return self.reliable and self.session.durable

    def wants(self, letter: Letter) -> bool:
        """Whether one of its filters matches."""
        topic = letter_topic(letter.topic)
        return any(matches(filter, topic) for filter in self.filters)


@final
class LetterReaders:
    """``serve`` is called at the end of every turn."""

    __slots__ = (
        "_clock", "_copies", "_counters", "_courier", "_lent", "_letters", "_listing", "_next", "_notices", "_readers",
        "_room", "_settings", "_subscriptions", "_version",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        subscriptions: Subscriptions,
        letters: DeadLetters,
        courier: Courier,
        room: Room,
        counters: BrokerCounters,
        clock: Callable[[], float],
        notices: Notices,
    ) -> None:
        self._counters = counters
        self._notices = notices
        self._settings = settings
        self._clock = clock
        self._subscriptions = subscriptions
        self._letters = letters
        self._courier = courier
        self._room = room
        self._version = 0
        self._readers: dict[Session, Reader] = {}
        self._listing = False  # a reader waits for the end of its list
        # Copies of new letters, with their readers. They are queued at the end of the turn: a letter may be made while
        # the queue of its reader is being sent.
        self._copies: Fifo[tuple[Reader, Message]] = Fifo()
        self._lent: dict[Session, dict[int, Delivery]] = {}  # letters with readers, by their items
        self._next = 0  # the reader that is served first in the next turn

    # Readers

    def _refresh(self) -> None:
        """Take over the changes of subscriptions."""
        if self._version == self._subscriptions.letters_version:
            return
        self._version = self._subscriptions.letters_version
        interests = self._subscriptions.letter_interests()
        old, self._readers = self._readers, {}
        for interest in interests:
            session = interest.session
            if session.kind == VEHICLE:
                continue
            reader = self._readers.get(session)
            if reader is None:
                reader = self._readers[session] = Reader(session)
            reader.add(interest)
        for session, reader in self._readers.items():
            before = old.get(session)
            if before is not None and before.filters == reader.filters:
                reader.after, reader.paused = before.after, before.paused
                reader.lists, reader.begun = before.lists, before.begun
                reader.too_large = before.too_large
        self._listing = any(one.lists for one in self._readers.values())

    def lost(self, session: Session) -> None:
        """The session has lost its connection: its letters may be lent to any reader again."""
        reader = self._readers.get(session)
        if reader is not None and reader.too_large:  # its next connection may take more
            reader.after = min(reader.after, min(reader.too_large) - 1)
            reader.too_large.clear()
        lent = self._lent.pop(session, None)
        if lent is None:
            return
        for item, delivery in lent.items():
            delivery.body = 0
            self._free(item)
        session.outbound.withdraw_all(set(lent.values()), False)

    def _free(self, item: int) -> None:
        letter = self._letters.queue.get(item)
        if letter is not None:
            letter.lent = False
        for reader in self._readers.values():
            if reader.takes:
                reader.after = min(reader.after, item - 1)

    def read(self, item: int) -> None:
        """A letter was acknowledged by its reader."""
        for session, lent in self._lent.items():
            if lent.pop(item, None) is not None:
                if not lent:
                    del self._lent[session]
                break
        self._letters.read(item)

    def refused(self, session: Session, delivery: Delivery, reason: int) -> None:
        """A reader cannot take a letter: the letter stays. If its packet is too large, this reader goes on with the
        next one, and is not offered it again; else it gets none for a while."""
        self._counters.letters_not_taken += 1
        self._notices.warn(
            "dead letter", "%s, client %s, cannot take a dead letter of %d bytes: %s; it stays",
            session.key[1], session.key[2], delivery.size, name_of(reason),
        )  # fmt: skip
        item = delivery.body
        delivery.body = 0
        lent = self._lent.get(session)
        if lent is not None:
            lent.pop(item, None)
            if not lent:
                del self._lent[session]
        reader = self._readers.get(session)
        after = 0 if reader is None else reader.after
        self._free(item)
        if reader is not None and reason == PACKET_TOO_LARGE:
            reader.after = after
            if len(reader.too_large) > 2 * len(self._letters) + _PORTION:
                queue = self._letters.queue
                reader.too_large = {one for one in reader.too_large if queue.get(one) is not None}
            reader.too_large.add(item)
        elif reader is not None:
            reader.paused = self._clock() + _PAUSE

    # Letters

    def added(self, letter: Letter, message: Message) -> None:
        """Send copies of a new letter to the readers that only watch."""
        self._refresh()
        for session, reader in self._readers.items():
            if reader.takes or reader.lists or session.kind == TIER or not reader.wants(letter):
                continue
            self._copies.append((reader, letter_message(letter, message)))

    def _send_copies(self) -> None:
        for _ in range(min(len(self._copies), _COPIES)):
            reader, form = self._copies.popleft()
            session = reader.session
            if not session.ended and session in self._readers:
                self._courier.offer(session, form, self._qos(session), False, reader.identifiers, None)

    def _qos(self, session: Session) -> int:
        """The QoS of copies: not above that of any of its filters."""
        interests = self._subscriptions.letter_interests()
        return min((one.subscription.qos for one in interests if one.session is session), default=0)

    def serve(self) -> bool:
        """Give the readers their next letters. Returns whether there is more to do in the next turn."""
        self._refresh()
        self._send_copies()
        if not self._readers or not (len(self._letters) or self._listing):
            return bool(self._copies)
        now = self._clock()
        readers = list(self._readers.values())
        more = bool(self._copies)
        for step in range(min(_LOOKED_AT, len(readers))):
            reader = readers[(self._next + step) % len(readers)]
            if (reader.takes or reader.lists) and reader.paused <= now and self._serve(reader):
                more = True
        self._next = (self._next + _LOOKED_AT) % len(readers) if len(readers) > _LOOKED_AT else 0
        return more

    def _serve(self, reader: Reader) -> bool:
        """Give one reader a portion. Returns whether there may be more for it at once."""
        session = reader.session
        if not self._can_take(session):
            return False
        if reader.lists and not reader.begun:
            reader.begun = True
            self._courier.lend(session, self._mark("begin"), (), 0)
        found = self._letters.queue.after(reader.after, _PORTION)
        for letter in found:
            if not self._can_take(session):
                return False
            reader.after = letter.item
            if letter.lent or letter.item in reader.too_large or not reader.wants(letter):
                continue
            form = letter_message(letter, self._letters.load(letter))
            if reader.takes:
                letter.lent = True
                delivery = self._courier.lend(session, form, reader.identifiers, letter.item)
                if delivery.body:  # else it was refused at once: its packet is too large
                    self._lent.setdefault(session, {})[letter.item] = delivery
            else:
                self._courier.lend(session, form, reader.identifiers, 0)
        if len(found) == _PORTION:
            return True
        if reader.lists:
            reader.lists = False
            self._listing = any(one.lists for one in self._readers.values())
            self._courier.lend(session, self._mark("end"), (), 0)
        return False

    def _can_take(self, session: Session) -> bool:
        connection = session.connection
        if connection is None or connection.closing or not (connection.accepted and connection.writable):
            return False
        outbound = session.outbound
        room = max(1, min(_PORTION, self._room.limits(session)[0] // 2))
        return connection.live and len(outbound.waiting) < room and outbound.bytes < _BYTES

    def _mark(self, what: str) -> Message:
        """The message that begins or ends a list of letters: it names the node, and says how many letters it has."""
        own = Properties()
        own.user = [("list", what), ("node", self._settings.node), ("letters", str(len(self._letters)))]
        return Message(TOPIC, b"", 1, False, encode_properties(own), 0.0, NEVER)
