"""All sessions of a broker, with their expiry and delayed wills.

It knows keys, lifetimes and the journal's records of sessions: never packets. What always holds: a session
belongs to one identity (kind, name, client id), and no other identity can reach it (mosquitto#3553); a session without
a connection has a time at which it ends, or never ends.
"""

from __future__ import annotations

import heapq
from typing import Final, final

from mesh.broker.persistence import Persistence, RecoveredState
from mesh.broker.quotas import Quotas, session_weight
from mesh.broker.session import Interest, Key, Session
from mesh.broker.settings import FOREVER, Settings
from mesh.broker.subscriptions import Subscriptions
from mesh.wire.reasons import QUOTA_EXCEEDED, SERVER_BUSY, SUCCESS

_SLACK: Final = 1024  # stale timers: a later change of the session replaced them


@final
class Sessions:
    """Sessions by key."""

    __slots__ = ("_by_key", "_order", "_quotas", "_settings", "_timers", "persistence", "subscriptions")

    def __init__(
        self, settings: Settings, persistence: Persistence, subscriptions: Subscriptions, quotas: Quotas
    ) -> None:
        self._settings = settings
        self._quotas = quotas
        self.persistence = persistence
        self.subscriptions = subscriptions
        self._by_key: dict[Key, Session] = {}
        self._timers: list[tuple[float, int, Session]] = []
        self._order = 0  # breaks ties between timers

    def __len__(self) -> int:
        return len(self._by_key)

    def all(self) -> list[Session]:
        """Every session."""
        return list(self._by_key.values())

    def get(self, key: Key) -> Session | None:
        """The session of one identity and client id."""
        return self._by_key.get(key)

    def refuses(self, key: Key, again: bool) -> int:
        """The reason code that refuses a new session, SUCCESS if it may be made. ``again``: it replaces one that has
        just ended. An inbox (no client id) is no session that the vehicle asked for."""
        if len(self._by_key) >= self._settings.max_sessions:
            return QUOTA_EXCEEDED
        if again:
            return SUCCESS
        share = self._quotas.share_of(key[0], key[1])
        if key[2] and not self._quotas.may_create(share):
            return QUOTA_EXCEEDED
        return SERVER_BUSY if self._quotas.is_strained_for(share) else SUCCESS

    def create(self, key: Key, vehicle: str, window: int) -> Session:
        """A new session; ``refuses`` has allowed it."""
        share = self._quotas.share_of(key[0], key[1])
        session = Session(self.persistence.new_id(), key, vehicle, window, self.persistence.depth, share)
        self._quotas.opened(share, session.inbox, session.weight)
        self._by_key[key] = session
        return session

    def weigh(self, session: Session) -> None:
        """Count the session with its present will."""
        weight = session_weight(session.key[2], 0 if session.will is None else session.will.size())
        self._quotas.weigh(session.share, weight - session.weight)
        session.weight = weight

    def end(self, session: Session) -> None:
        """End a session: remove its subscriptions, its queue and its records [MQTT-3.1.2-23]."""
        for interest in session.interests.values():
            self.subscriptions.remove(interest)
            self._quotas.unsubscribed(session.share, interest.subscription.filter)
        if session.durable or session.item:
            self.persistence.forget_session(session)
        session.outbound.discard()
        session.interests.clear()
        session.ends = 0.0
        session.will_due = 0.0
        del self._by_key[session.key]
        self._quotas.closed(session.share, session.inbox, session.weight)

    def detach(self, session: Session, now: float) -> None:
        """The session has lost its connection: keep it until it expires."""
        session.ends = 0.0 if session.expiry == FOREVER else now + session.expiry
        if session.durable:
            self.persistence.keep_session(session)
        self.schedule(session)

    def schedule(self, session: Session) -> None:
        """Return the session from ``due`` when its will or its end is due."""
        if len(self._timers) > 2 * len(self._by_key) + _SLACK:
            self._drop_stale_timers()
        self._push(session)

    def _drop_stale_timers(self) -> None:
        """Drop the timers of sessions that have ended or reconnected: each disconnection leaves one, maybe for days."""
        self._timers.clear()
        for session in self._by_key.values():
            if session.connection is None:
                self._push(session)

    def _push(self, session: Session) -> None:
        for moment in (session.ends, session.will_due):
            if moment:
                self._order += 1
                heapq.heappush(self._timers, (moment, self._order, session))

    def due(self, now: float) -> list[Session]:
        """Sessions without a connection whose will or end may be due. Timers of other sessions are ignored.
        """
        found: list[Session] = []
        timers = self._timers
        while timers and timers[0][0] <= now:
            session = heapq.heappop(timers)[2]
            if session.connection is None and self._by_key.get(session.key) is session:
                found.append(session)
        return found

    def restore(self, recovered: RecoveredState, now: float) -> None:
        """Restore the sessions from the journal. One that was connected is kept at least ``attach_grace`` seconds."""
        grace = self._settings.attach_grace
        for session in recovered.sessions.values():
            self._by_key[session.key] = session
            session.share = self._quotas.share_of(session.kind, session.key[1])
            session.outbound.join(session.share.queue)
            self._quotas.opened(session.share, session.inbox, session.weight)
            self.weigh(session)
            if session.expiry > self._settings.max_session_expiry:  # the limit was lowered
                session.expiry = self._settings.max_session_expiry
            if session.ends == 0.0 and session.expiry != FOREVER:
                session.ends = now + max(session.expiry, grace)
            if session.will is not None and session.will_due == 0.0:
                session.will_due = now + max(session.will_delay, grace)
            # A delivery that may have been sent before the crash is sent again with DUP [MQTT-3.3.1-1]. The record of a
            # disconnected session says what was sent; that of a connected one was written before its last sends.
            outbound = session.outbound
            if session.attached:
                outbound.sent = outbound.next_number
            for delivery in outbound.waiting:
                delivery.dup = delivery.number < outbound.sent
            self.schedule(session)
        for interest in recovered.interests:
            self._restore_interest(interest)

    def _restore_interest(self, interest: Interest) -> None:
        full = interest.subscription.filter
        old = interest.session.interests.get(full)
        if old is not None:
            self.subscriptions.remove(old)
            self.persistence.forget_interest(old)
        else:
            self._quotas.subscribed(interest.session.share, full)
        interest.session.interests[full] = interest
        self.subscriptions.add(interest)
