"""The room in the queues of sessions: their limits, what is dropped to make room, and the warning before they are full.

It knows queues, their limits and the quotas of their owners: never connections, topics, or what becomes of a message
without room. What always holds:

* the limits of a session, of its owner and of the node are checked together, by every part that queues a message;
* only an inbox, with ``drop_oldest``, drops messages that have not expired, and counts them;
* the queue of a back end is never full without a warning, when three quarters of it were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from mesh.broker.counters import BrokerCounters
from mesh.broker.deadletters import DeadLetters
from mesh.broker.notices import Notices, shortened
from mesh.broker.persistence import Persistence
from mesh.broker.principal import BACKEND, TIER, VEHICLE
from mesh.broker.quotas import Quotas
from mesh.broker.session import Session
from mesh.broker.settings import DROP_OLDEST, Settings


@final
class Room:
    """``filling``: sessions of back ends whose queues are three quarters full."""

    __slots__ = (
        "_clock", "_counters", "_letters", "_notices", "_persistence", "_quotas", "_settings", "filling",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        persistence: Persistence,
        letters: DeadLetters,
        counters: BrokerCounters,
        clock: Callable[[], float],
        quotas: Quotas,
        notices: Notices,
    ) -> None:
        self._settings = settings
        self._persistence = persistence
        self._letters = letters
        self._counters = counters
        self._clock = clock
        self._quotas = quotas
        self._notices = notices
        self.filling: set[Session] = set()

    def limits(self, session: Session) -> tuple[int, int]:
        """How many messages may wait for a session, and how many bytes it may hold."""
        if session.kind == BACKEND and session.durable:
            return self._settings.backend_queue_messages, self._settings.backend_queue_bytes
        return self._bounds(session)

    def _bounds(self, session: Session) -> tuple[int, int]:
        """As ``limits``, but the queue of a back end has three quarters of them until it was warned about."""
        settings = self._settings
        if session.kind == VEHICLE:
            if session.inbox:
                return settings.inbox_messages, settings.inbox_bytes
            return settings.max_queue_messages, settings.max_queue_bytes
        if session.kind == TIER:
            return settings.tier_queue_messages, settings.tier_queue_bytes
        if not session.durable:
            return settings.max_queue_messages, settings.max_queue_bytes
        messages, size = settings.backend_queue_messages, settings.backend_queue_bytes
        return (messages, size) if session.filling else (messages - messages // 4, size - size // 4)

    def is_full(self, session: Session) -> bool:
        """Whether the queue of a session is at its limits or above them."""
        messages, size = self.limits(session)
        return len(session.outbound.waiting) > messages or session.outbound.bytes > size

    def is_short(self, session: Session, size: int) -> bool:
        """Whether a message of ``size`` bytes would need room that is perhaps not there."""
        messages, limit = self._bounds(session)
        outbound = session.outbound
        if len(outbound.waiting) >= messages or outbound.bytes + size > limit or self._quotas.strained:
            return True
        return outbound.share.bytes + size > outbound.share.limit

    def make_room(self, session: Session, size: int, can_wait: bool = False) -> bool:
        """Whether a message of ``size`` bytes can be queued for a session, after dropping what may be dropped.
        ``can_wait``: if not, it is offered again later, so it is not refused."""
        messages, limit = self._bounds(session)
        outbound = session.outbound
        if len(outbound.waiting) >= messages or outbound.bytes + size > limit:
            return self._make_room(session, size, can_wait)
        queue = outbound.share
        if self._quotas.strained or queue.bytes + size > queue.limit:
            return not self.refused_by_quota(session, size, can_wait)
        return True

    def _make_room(self, session: Session, size: int, can_wait: bool) -> bool:
        """As ``make_room``, for a queue at its limits."""
        settings = self._settings
        messages, limit = self._bounds(session)
        outbound = session.outbound
        for expired in outbound.take_expired(self._clock()):
            self._letters.expired(session, expired)
            self._persistence.forget(expired)
        if not session.filling and session.kind == BACKEND and session.durable:
            if len(outbound.waiting) >= messages or outbound.bytes + size > limit:
                self._warn_filling(session)
                messages, limit = self.limits(session)
        # Deliveries in flight to a connected receiver do not count as waiting.
        while len(outbound.waiting) >= messages or (outbound.bytes + size > limit and outbound.waiting):
            if not session.inbox or settings.inbox_when_full != DROP_OLDEST:
                return False
            oldest = outbound.drop_head()
            if oldest is None:
                return False
            self._persistence.forget(oldest)
            self._counters.dropped_full += 1
            self._notices.warn("oldest", "the inbox of vehicle %s is full: its oldest message is dropped",
                               session.vehicle)  # fmt: skip
        return not self.refused_by_quota(session, size, can_wait)

    def refused_by_quota(self, session: Session, size: int, can_wait: bool) -> bool:
        """Whether the limits of the session's owner, or of the node, refuse a message for its queue."""
        queue = session.outbound.share
        quotas = self._quotas
        if not quotas.strained and queue.bytes + size <= queue.limit:
            return False
        if quotas.may_queue(session.share, session.outbound.bytes, size):
            return False
        if not can_wait:
            quotas.refuse_queued(session.share, size)
        return True

    def _warn_filling(self, session: Session) -> None:
        session.filling = True
        self.filling.add(session)
        share, outbound = shortened(session.letter_share()), session.outbound
        self._notices.warn("filling", "the queue of %s is three quarters full: %d messages, %d bytes",
                           share, len(outbound.waiting), outbound.bytes)  # fmt: skip

    def check_filling(self) -> None:
        """Called once a second: find the queues that are no more than half full again, or whose sessions have ended."""
        for session in list(self.filling):
            messages, size = self.limits(session)
            outbound = session.outbound
            if 2 * len(outbound.waiting) <= messages and 2 * outbound.bytes <= size:
                session.filling = False
                self.filling.discard(session)
