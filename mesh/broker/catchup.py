"""What new subscriptions have yet to get of the retained messages: handed to their sessions as these have room.

A filter may match more retained messages than a queue holds, and each of them is due to its subscriber [MQTT-3.3.1-9].
So a session has arrears, and gets a portion of them whenever its queue runs low. It knows sessions, retained messages
and queues: never packets. What always holds:

* a message is read from the journal when its turn comes, not before; one that was replaced meanwhile is passed over,
  for its successor has gone to the subscriber as any new message does;
* half of a queue is left to new messages;
* the arrears of a durable session outlive a crash: its subscription's record says which journal items are due. A crash
  between a portion and that record repeats the portion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from mesh.broker.counters import BrokerCounters
from mesh.broker.courier import Courier
from mesh.broker.persistence import Persistence
from mesh.broker.principal import TIER
from mesh.broker.retained import Retained
from mesh.broker.session import Interest, RetainedBacklog, Session
from mesh.broker.settings import Settings
from mesh.broker.subscriptions import Subscriptions

_PORTION: Final = 64  # messages that a session gets in one turn of the node


@final
class CatchUp:
    """``serve_all`` is called at the end of every turn. The topics of a session's arrears are at most
    ``settings.max_retained``."""

    __slots__ = (
        "_clock", "_counters", "_courier", "_persistence", "_retained", "_settings", "_store", "_subscriptions",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        subscriptions: Subscriptions,
        retained: Retained,
        persistence: Persistence,
        courier: Courier,
        counters: BrokerCounters,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._subscriptions = subscriptions
        self._retained = retained
        self._persistence = persistence
        self._store = persistence.store
        self._courier = courier
        self._counters = counters
        self._clock = clock

    # What is due

    def due(self, session: Session, filter: str, promised: int) -> list[str] | None:
        """The topics whose retained messages a subscription to ``filter`` brings, which is yet to be made, the oldest
        first; ``None`` if they are too many for the session, which has been ``promised`` others."""
        owed = promised
        for part in session.retained_backlog:
            if part.interest.subscription.filter != filter:
                owed += len(part.topics) - part.at
        topics = self._topics(session, filter, 0, self._store.position)
        return topics if not owed or owed + len(topics) <= self._settings.max_retained else None

    def _topics(self, session: Session, filter: str, after: int, until: int) -> list[str]:
        """Those that match ``filter`` and whose messages are journal items behind ``after`` and up to ``until``."""
        self._retained.sweep(self._clock())
        found = [(item, topic) for topic, item in self._retained.items(filter) if after < item <= until]
        found.sort()
        everything = session.kind == TIER
        return [topic for _, topic in found if everything or not self._subscriptions.is_refused(topic)]

    def queue_retained(self, interest: Interest, topics: list[str]) -> None:
        """``topics`` are due by a subscription: what the session has room for it gets now."""
        session = interest.session
        if not topics or session.interests.get(interest.subscription.filter) is not interest:
            return
        until = self._store.position
        last = session.retained_backlog[-1] if session.retained_backlog else None
        if last is not None and last.interest is interest:
            last.topics += topics
            last.until = until
        else:
            session.retained_backlog += (RetainedBacklog(interest, topics, until),)
        self._serve(session)
        if session.retained_backlog and session.retained_backlog[-1].interest is interest:
            self._note(interest)

    def queue_retained_update(self, interest: Interest, topic: str) -> None:
        """A message retained elsewhere has come for a subscription. Whoever is owed as much as may be goes without."""
        owed = 0
        for part in interest.session.retained_backlog:
            owed += len(part.topics) - part.at
            if 2 * part.at > len(part.topics):
                del part.topics[: part.at]
                part.at = 0
        if owed < self._settings.max_retained:
            self.queue_retained(interest, [topic])
        else:
            self._counters.rejected += 1

    def forget(self, interest: Interest) -> None:
        """The subscription is over, or there is a new one in its place."""
        session = interest.session
        if session.retained_backlog:
            kept = [part for part in session.retained_backlog if part.interest is not interest]
            session.retained_backlog = tuple(kept)

    def restore(self, interests: list[Interest]) -> None:
        """After recovery: what the records of subscriptions say is due."""
        for interest in interests:
            session, filter = interest.session, interest.subscription.filter
            if interest.owed_until == 0 or session.interests.get(filter) is not interest:
                continue
            topics = self._topics(session, filter, interest.owed_after, interest.owed_until)
            if topics:
                part = RetainedBacklog(interest, topics, interest.owed_until)
                part.after = interest.owed_after
                session.retained_backlog += (part,)
            else:
                self._persistence.note_arrears(interest, 0, 0)

    # Portions

    def serve_all(self) -> bool:
        """The end of a turn: the next portions; whether a session has room for more in the next turn."""
        courier = self._courier
        if not courier.backlog_due:
            return False
        for session in courier.take_hungry():
            self._serve(session)
        return bool(courier.backlog_due)

    def _serve(self, session: Session) -> None:
        """One portion, if the queue has run low."""
        room = max(1, min(_PORTION, self._courier.limits(session)[0] // 2))
        if 2 * len(session.outbound.waiting) > room:
            return
        self._retained.sweep(self._clock())
        looked = 0
        while session.retained_backlog and looked < _PORTION and self._open(session, room):
            part = session.retained_backlog[0]
            begun = part.at
            while part.at < len(part.topics) and looked < _PORTION and self._open(session, room):
                if not self._offer(session, part):
                    break
                looked += 1
            if part.at == len(part.topics):
                session.retained_backlog = session.retained_backlog[1:]
            elif part.at == begun:
                break
            if part.interest.owed_until:
                self._note(part.interest)
        if looked == _PORTION:
            self._courier.resume_backlog(session)

    def _open(self, session: Session, room: int) -> bool:
        """Whether its client can be given something."""
        connection = session.connection
        if connection is None or connection.closing or not (connection.writable and connection.live):
            return False
        return len(session.outbound.waiting) < room

    def _offer(self, session: Session, part: RetainedBacklog) -> bool:
        """The next one of a part; ``False`` if there is no room for it now."""
        topic = part.topics[part.at]
        item = self._retained.item(topic)
        if item is not None and item <= part.until:
            message = self._persistence.read(item)
            if not self._courier.make_room(session, message.size()):
                return False
            part.after = item
            if not (message.from_tier and session.kind == TIER):
                interest = part.interest
                identifiers = (interest.identifier,) if interest.identifier else ()
                qos = min(message.qos, interest.subscription.qos)
                self._courier.offer(session, message, qos, True, identifiers, None)
        part.at += 1
        return True

    def _note(self, interest: Interest) -> None:
        """Write what is due by a subscription of a durable session now."""
        if not interest.session.durable:
            return
        parts = [part for part in interest.session.retained_backlog if part.interest is interest]
        after = min((part.after for part in parts), default=0)
        until = max((part.until for part in parts), default=0)
        self._persistence.note_arrears(interest, after, until)
