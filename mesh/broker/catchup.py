"""The retained backlog: retained messages that new subscriptions have still to get, queued as their sessions have room.

A filter may match more retained messages than a queue holds, and each of them is due to its subscriber [MQTT-3.3.1-9].
So a session has a retained backlog, and gets a portion of it whenever its queue runs low. It knows sessions, retained
messages and queues: never packets. What always holds:

* a message is read from the journal when it is queued, not before; a message that was replaced in the meantime is
  skipped, because the subscriber got its successor as a live message;
* half of a queue is left to live messages;
* the topics of a subscription are looked up when those of the subscriptions before it are queued, a bounded number of
  steps in each turn: a session holds one list of topics at most, beside the updates that an edge sends to a core;
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
from mesh.broker.room import Room
from mesh.broker.session import Interest, RetainedBacklog, Session
from mesh.broker.settings import Settings
from mesh.broker.subscriptions import Subscriptions
from mesh.broker.work import STEPS

_PORTION: Final = 64  # messages that a session gets in one turn of the node

# Steps of the work, see ``work``.
_MESSAGE: Final = 16  # a message that is read from the journal and queued
_SHARE: Final = 1024  # of one session at the end of a turn: sixty messages


@final
class CatchUp:
    """``serve_all`` is called at the end of every turn, ``tick`` once a second."""

    __slots__ = (
        "_clock", "_counters", "_courier", "_left", "_persistence", "_retained", "_room", "_settings", "_store",
        "_subscriptions", "_without_room",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        subscriptions: Subscriptions,
        retained: Retained,
        persistence: Persistence,
        courier: Courier,
        room: Room,
        counters: BrokerCounters,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._subscriptions = subscriptions
        self._retained = retained
        self._persistence = persistence
        self._store = persistence.store
        self._courier = courier
        self._room = room
        self._counters = counters
        self._clock = clock
        self._left = STEPS  # in this turn, for subscriptions that are made in it
        # Sessions with a message that found no room. If the node is full, no acknowledgement may come that says when
        # there is room again.
        self._without_room: set[Session] = set()

    # The backlog

    def begin(self, interest: Interest) -> None:
        """A new subscription: all retained messages that it matches now are due. Queues as many of them as the session
        has room for."""
        session = interest.session
        if not len(self._retained) or session.interests.get(interest.subscription.filter) is not interest:
            return
        part = RetainedBacklog(interest, 0, self._store.position)
        if self._left > 0:
            self._left -= self._search(part, self._left)
            if part.searched and not part.topics:
                return
            if session.retained_backlog:  # it has a list of topics already: look again when that is served
                part = RetainedBacklog(interest, 0, self._store.position)
        self._serve_now(_add(part))

    def owe(self, interest: Interest) -> None:
        """As ``begin``, for a subscription that is one of many and not in the journal yet: all that it matches now is
        due, and ``serve_all`` looks for it later."""
        if len(self._retained):
            interest.due_until = self._store.position
            _add(RetainedBacklog(interest, 0, interest.due_until))

    def _serve_now(self, part: RetainedBacklog) -> None:
        interest = part.interest
        self._left -= self._serve(interest.session, self._left)
        backlog = interest.session.retained_backlog
        if backlog is not None and backlog.get(interest) is part:
            self._record_due(part)

    def queue_retained_update(self, interest: Interest, topic: str) -> None:
        """Add a message that an edge retains to the backlog of a subscription. A subscription that has ``max_retained``
        due does not get it."""
        node, backlog = self._retained.node(topic), interest.session.retained_backlog
        part = None if backlog is None else backlog.get(interest)
        if part is None:
            part = _add(RetainedBacklog(interest, 0, 0))
            part.searched = True
        elif 2 * part.at > len(part.topics):
            del part.topics[: part.at]
            part.at = 0
        if node is None or len(part.topics) - part.at >= self._settings.max_retained:
            self._counters.rejected += 1
            return
        part.until = self._store.position
        if part.searched or part.search is not None:  # else the search finds it
            part.topics.append(node)
        self._serve_now(part)

    def forget(self, interest: Interest) -> None:
        """Remove the backlog of a subscription that has ended or was replaced."""
        backlog = interest.session.retained_backlog
        if backlog is not None and backlog.pop(interest, None) is not None and not backlog:
            interest.session.retained_backlog = None

    def restore(self, interests: list[Interest]) -> None:
        """Restore the backlogs after recovery, from the records of the subscriptions."""
        for interest in interests:
            if interest.due_until and interest.session.interests.get(interest.subscription.filter) is interest:
                _add(RetainedBacklog(interest, interest.due_after, interest.due_until))

    # Portions

    def serve_all(self) -> bool:
        """Queue the next portions at the end of a turn. Returns whether a session has room for more in the next."""
        self._left = STEPS
        due = self._courier.backlog_due
        if not due:
            return False
        steps = STEPS
        for _ in range(len(due)):
            if steps <= 0:
                break
            steps -= self._serve(self._courier.next_backlog(), min(_SHARE, steps))
        return bool(due)

    def tick(self) -> None:
        """Called once a second: try again what found no room."""
        for session in self._without_room:
            self._courier.resume_backlog(session)
        self._without_room.clear()

    def _serve(self, session: Session, steps: int) -> int:
        """Queue one portion, if the queue has run low, with about ``steps`` steps of work. Returns how many it took."""
        room = max(1, min(_PORTION, self._room.limits(session)[0] // 2))
        if 2 * len(session.outbound.waiting) > room:
            return 1
        looked = 0
        used = 1
        while session.retained_backlog and looked < _PORTION and self._can_take(session, room):
            if used >= steps:
                self._courier.resume_backlog(session)
                break
            part = next(iter(session.retained_backlog.values()))
            if not part.searched:
                used += self._search(part, steps - used)
                continue
            begun = part.at
            while part.at < len(part.topics) and looked < _PORTION and used < steps and self._can_take(session, room):
                if not self._offer(session, part):
                    break
                looked += 1
                used += _MESSAGE
            over = part.at == len(part.topics)
            if over:
                self.forget(part.interest)
            if part.interest.due_until:
                self._record_due(part)
            if part.at == begun and not over:
                self._without_room.add(session)
                break
        if looked == _PORTION:
            self._courier.resume_backlog(session)
        return used

    def _search(self, part: RetainedBacklog, steps: int) -> int:
        """Look for the topics of a part of a backlog; returns the steps that it took."""
        search = part.search
        if search is None:
            filter = part.interest.subscription.filter
            search = part.search = self._retained.search(filter, part.after, part.until)
        used = search.run(steps)
        if search.done:
            part.topics = search.found + part.topics  # those that came meanwhile are newer
            part.search = None
            part.searched = True
        return used

    def _can_take(self, session: Session, room: int) -> bool:
        """Whether the session is connected, its client reads, and its queue has room."""
        connection = session.connection
        if connection is None or connection.closing or not (connection.writable and connection.live):
            return False
        return len(session.outbound.waiting) < room

    def _offer(self, session: Session, part: RetainedBacklog) -> bool:
        """Queue the next message of ``part``; ``False`` if there is no room for it now."""
        node = part.topics[part.at]
        item = node.value
        refused = self._subscriptions.withholds(session, node.topic)
        if item is not None and item <= part.until and not refused and not self._retained.has_expired(
            item, self._clock()
        ):
            message = self._persistence.read(item)
            if not self._room.make_room(session, message.size(), True):
                return False
            part.after = item
            if not (message.from_tier and session.kind == TIER):
                interest = part.interest
                identifiers = (interest.identifier,) if interest.identifier else ()
                qos = min(message.qos, interest.subscription.qos)
                self._courier.offer(session, message, qos, True, identifiers, None)
        part.at += 1
        return True

    def _record_due(self, part: RetainedBacklog) -> None:
        """Write to the journal what is still due by a subscription of a durable session."""
        interest = part.interest
        if not interest.session.durable:
            return
        over = part.searched and part.at == len(part.topics)
        self._persistence.keep_backlog(interest, 0 if over else part.after, 0 if over else part.until)


def _add(part: RetainedBacklog) -> RetainedBacklog:
    """Put a part behind the others of its session."""
    session = part.interest.session
    if session.retained_backlog is None:
        session.retained_backlog = {}
    session.retained_backlog[part.interest] = part
    return part
