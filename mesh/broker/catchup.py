"""The retained backlog: retained messages that new subscriptions have still to get, queued as their sessions have room.

A filter may match more retained messages than a queue holds, and each of them is due to its subscriber [MQTT-3.3.1-9].
So a session has a retained backlog, and gets a portion of it whenever its queue runs low. It knows sessions, retained
messages and queues: never packets. What always holds:

* a message is read from the journal when it is queued, not before; a message that was replaced in the meantime is
  skipped, because the subscriber got its successor as a live message;
* half of a queue is left to live messages;
* the backlog of a durable session survives a crash: the record of its subscription says which journal items are due.
  A crash between a portion and that record repeats the portion.
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
    """``serve_all`` is called at the end of every turn. The backlog of a session has at most ``settings.max_retained``
    topics."""

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

    # The backlog

    def due(self, session: Session, filter: str, promised: int) -> list[str] | None:
        """The topics whose retained messages a new subscription to ``filter`` brings, the oldest first; ``None`` if the
        backlog would exceed its limit. ``promised``: topics due by other subscriptions of the same packet."""
        due = promised
        for part in session.retained_backlog:
            if part.interest.subscription.filter != filter:
                due += len(part.topics) - part.at
        topics = self._topics(session, filter, 0, self._store.position)
        return topics if not due or due + len(topics) <= self._settings.max_retained else None

    def _topics(self, session: Session, filter: str, after: int, until: int) -> list[str]:
        """Topics that match ``filter`` and whose messages are journal items after ``after`` and up to ``until``."""
        self._retained.sweep(self._clock())
        found = [(item, topic) for topic, item in self._retained.items(filter) if after < item <= until]
        found.sort()
        everything = session.kind == TIER
        return [topic for _, topic in found if everything or not self._subscriptions.is_refused(topic)]

    def queue_retained(self, interest: Interest, topics: list[str]) -> None:
        """Add ``topics`` to the backlog of a subscription, and queue as many messages as the session has room for."""
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
            self._record_due(interest)

    def queue_retained_update(self, interest: Interest, topic: str) -> None:
        """Add a message that an edge retains to the backlog of a subscription. A session already at ``max_retained``
        does not get it."""
        due = 0
        for part in interest.session.retained_backlog:
            due += len(part.topics) - part.at
            if 2 * part.at > len(part.topics):
                del part.topics[: part.at]
                part.at = 0
        if due < self._settings.max_retained:
            self.queue_retained(interest, [topic])
        else:
            self._counters.rejected += 1

    def forget(self, interest: Interest) -> None:
        """Remove the backlog of a subscription that has ended or was replaced."""
        session = interest.session
        if session.retained_backlog:
            kept = [part for part in session.retained_backlog if part.interest is not interest]
            session.retained_backlog = tuple(kept)

    def restore(self, interests: list[Interest]) -> None:
        """Restore the backlogs after recovery, from the records of the subscriptions."""
        for interest in interests:
            session, filter = interest.session, interest.subscription.filter
            if interest.due_until == 0 or session.interests.get(filter) is not interest:
                continue
            topics = self._topics(session, filter, interest.due_after, interest.due_until)
            if topics:
                part = RetainedBacklog(interest, topics, interest.due_until)
                part.after = interest.due_after
                session.retained_backlog += (part,)
            else:
                self._persistence.keep_backlog(interest, 0, 0)

    # Portions

    def serve_all(self) -> bool:
        """Queue the next portions at the end of a turn. Returns whether a session has room for more in the next."""
        courier = self._courier
        if not courier.backlog_due:
            return False
        for session in courier.take_backlog_due():
            self._serve(session)
        return bool(courier.backlog_due)

    def _serve(self, session: Session) -> None:
        """Queue one portion, if the queue has run low."""
        room = max(1, min(_PORTION, self._courier.limits(session)[0] // 2))
        if 2 * len(session.outbound.waiting) > room:
            return
        self._retained.sweep(self._clock())
        looked = 0
        while session.retained_backlog and looked < _PORTION and self._can_take(session, room):
            part = session.retained_backlog[0]
            begun = part.at
            while part.at < len(part.topics) and looked < _PORTION and self._can_take(session, room):
                if not self._offer(session, part):
                    break
                looked += 1
            if part.at == len(part.topics):
                session.retained_backlog = session.retained_backlog[1:]
            elif part.at == begun:
                break
            if part.interest.due_until:
                self._record_due(part.interest)
        if looked == _PORTION:
            self._courier.resume_backlog(session)

    def _can_take(self, session: Session, room: int) -> bool:
        """Whether the session is connected, its client reads, and its queue has room."""
        connection = session.connection
        if connection is None or connection.closing or not (connection.writable and connection.live):
            return False
        return len(session.outbound.waiting) < room

    def _offer(self, session: Session, part: RetainedBacklog) -> bool:
        """Queue the next message of ``part``; ``False`` if there is no room for it now."""
        topic = part.topics[part.at]
        item = self._retained.item(topic)
        if item is not None and item <= part.until:
            message = self._persistence.read(item)
            if not self._courier.make_room(session, message.size(), True):
                return False
            part.after = item
            if not (message.from_tier and session.kind == TIER):
                interest = part.interest
                identifiers = (interest.identifier,) if interest.identifier else ()
                qos = min(message.qos, interest.subscription.qos)
                self._courier.offer(session, message, qos, True, identifiers, None)
        part.at += 1
        return True

    def _record_due(self, interest: Interest) -> None:
        """Write to the journal what is still due by a subscription of a durable session."""
        if not interest.session.durable:
            return
        parts = [part for part in interest.session.retained_backlog if part.interest is interest]
        after = min((part.after for part in parts), default=0)
        until = max((part.until for part in parts), default=0)
        self._persistence.keep_backlog(interest, after, until)
