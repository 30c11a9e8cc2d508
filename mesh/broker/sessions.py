"""All sessions of a broker, with their expiry and delayed wills.

It knows keys, lifetimes and the journal's records of sessions: never packets. What always holds: a session
belongs to one identity (kind, name, client id), and no other identity can reach it (mosquitto#3553); a session without
a connection has a time at which it ends, or never ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

from mesh.broker.itemreader import RecoveredState
from mesh.broker.persistence import Persistence
from mesh.broker.quotas import Quotas, session_weight
from mesh.broker.session import Interest, Key, Session
from mesh.broker.settings import FOREVER, Settings
from mesh.broker.sharing import Sharing
from mesh.broker.subscriptions import Subscriptions
from mesh.broker.timers import Timers
from mesh.broker.work import Work
from mesh.wire.reasons import QUOTA_EXCEEDED, SERVER_BUSY, SUCCESS

# Steps of the work, see ``work``.
_SUBSCRIPTION: Final = 16  # the end of a subscription
_DELIVERY: Final = 4  # the end of a delivery

_ENDED: Final = 1.0  # in ``ends``: the session has ended, and a part of its items may be dropped


@final
class Sessions:
    """Sessions by key. ``ending``: sessions that have ended, and whose items are not all dropped yet."""

    __slots__ = (
        "_by_key", "_quotas", "_settings", "_sharing", "_timers", "_work", "ending", "persistence", "subscriptions",
    )  # fmt: skip

    def __init__(
        self, settings: Settings, persistence: Persistence, subscriptions: Subscriptions, quotas: Quotas,
        sharing: Sharing, work: Work,
    ) -> None:
        self._settings = settings
        self._quotas = quotas
        self.persistence = persistence
        self.subscriptions = subscriptions
        self._sharing = sharing
        self._work = work
        self._by_key: dict[Key, Session] = {}
        self._timers: Timers[Session] = Timers()
        self.ending: set[Session] = set()

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

    def rename(self, session: Session, key: Key) -> None:
        """Give a session without a connection another key of the same identity, which no session has."""
        inbox, weight = session.inbox, session.weight
        del self._by_key[session.key]
        session.name(key)
        self._by_key[key] = session
        session.weight = session_weight(key[2], 0)
        self._quotas.opened(session.share, session.inbox, session.weight)
        self._quotas.closed(session.share, inbox, weight)

    def end(self, session: Session) -> None:
        """End a session: it gets no more messages, and its subscriptions, its queue and its records are removed
        [MQTT-3.1.2-23], the first of them at once. Its key is free."""
        session.ended = True
        session.ends = 0.0
        session.will_due = 0.0
        if session.timer is not None:
            self._timers.remove(session.timer)
            session.timer = None
        if self._by_key.get(session.key) is session:
            del self._by_key[session.key]
        self.subscriptions.leave_out()
        self.ending.add(session)
        self._quotas.closed(session.share, session.inbox, session.weight)
        self._work.start(self._end(session))
        if session in self.ending and session.item:
            # All records of a turn are on disk together or not at all, so a crash finds either the session as it was,
            # or this mark, with which recovery ends it.
            session.ends = _ENDED
            session.will = None
            self.persistence.keep_session(session)

    def _end(self, session: Session) -> Iterator[int]:
        """The rest of the end. Other members of its groups get their messages first: a crash must not lose them."""
        try:
            if session.shared:
                for group in self.subscriptions.groups_of(session):
                    yield from self._sharing.move(session, group)
            for filter, interest in list(session.interests.items()):
                self.subscriptions.remove(interest)
                self.persistence.forget_interest(interest)
                self._quotas.unsubscribed(session.share, filter)
                del session.interests[filter]
                yield _SUBSCRIPTION
            session.retained_backlog = None
            for item in list(session.incoming.values()):
                if item:
                    self.persistence.drop(item)
                    yield _DELIVERY
            session.incoming.clear()
            while True:
                delivery = session.outbound.drop_any()
                if delivery is None:
                    break
                self.persistence.forget(delivery)
                yield _DELIVERY
            self.persistence.forget_state(session)
        finally:
            self.ending.discard(session)
            self._quotas.settled(session.share)

    def detach(self, session: Session, now: float) -> None:
        """The session has lost its connection: keep it until it expires."""
        session.ends = 0.0 if session.expiry == FOREVER else now + session.expiry
        self.schedule(session)
        if session.durable:
            self.persistence.keep_session(session)

    def schedule(self, session: Session) -> None:
        """Return the session from ``next_due`` when its will or its end is due. It has one timer, also after it has
        reconnected: then the timer is ignored when it fires."""
        if session.timer is not None:
            self._timers.remove(session.timer)
            session.timer = None
        when = session.ends
        if session.will_due and (not when or session.will_due < when):
            when = session.will_due
        if when:
            session.timer = self._timers.add(when, session)

    def next_due(self, now: float) -> Session | None:
        """A session without a connection whose will or end is due; ``None`` if there is no other."""
        while True:
            timer = self._timers.pop(now)
            if timer is None:
                return None
            session = timer.value
            session.timer = None
            if session.connection is None:
                return session

    def restore(self, recovered: RecoveredState, now: float) -> Iterator[int]:
        """Restore the sessions from the journal. One that was connected is kept at least ``attach_grace`` seconds.
        Yields now and then, with the steps of work that were done."""
        grace = self._settings.attach_grace
        ended: list[Session] = []
        for session in recovered.sessions.values():
            session.share = self._quotas.share_of(session.kind, session.key[1])
            session.outbound.join(session.share)
            self._quotas.opened(session.share, session.inbox, session.weight)
            self.weigh(session)
            if session.ends == _ENDED:
                ended.append(session)
                continue
            self._by_key[session.key] = session
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
            waiting = outbound.waiting
            for place in range(waiting.begin(), waiting.end()):
                delivery = waiting.at(place)
                if delivery is None or delivery.number >= outbound.sent:
                    break  # they are in the order of their numbers, and have no DUP yet
                delivery.dup = True
                yield 1
            self.schedule(session)
            yield _DELIVERY
        for interest in recovered.interests:
            self._restore_interest(interest)
            yield _SUBSCRIPTION
        for session in ended:
            self.end(session)

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
