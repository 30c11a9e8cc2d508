"""Brings sessions that exist into line with the rules of today: after a restart, and after a change of the settings or
of the roles of a client.

It knows what access allows today, the inbox's rules and who is admitted: never packets. What always holds:

* a subscription that its client may not make today ends as with UNSUBSCRIBE, whether the client is connected or not;
  one that it may make with a lower QoS has that one;
* a retained message that a vehicle or back end published at this node, and may not publish today, is deleted;
* the work is done in slices; a later change begins it anew, and what was begun before ends;
* an inbox expires as the rules of today say, from the time when it was made;
* a connection whose client is not admitted today, or that an operator ends, is closed, and its session stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

from mesh.broker.claim import Ended, Ends, ignore
from mesh.broker.closing import Closing
from mesh.broker.counters import BrokerCounters
from mesh.broker.inbox import Inbox
from mesh.broker.notices import Notices, shortened
from mesh.broker.principal import BACKEND, TIER, Permissions
from mesh.broker.retained import Retained
from mesh.broker.sender import Sender
from mesh.broker.session import Interest, Key, Session
from mesh.broker.sessions import Sessions
from mesh.broker.settings import FOREVER
from mesh.broker.subscriber import Subscriber
from mesh.broker.work import Work
from mesh.wire.reasons import name_of

# Steps of the work, see ``work``.
_LOOK: Final = 1  # at a session
_CHECK: Final = 2  # of a filter
_REMOVAL: Final = 16  # of a subscription, or the end of a connection


@final
class Enforcement:
    """``permissions_of``: what the client with the key of a session may do today, that had these roles, and was
    admitted by the provider with this name. ``withdraw`` deletes a retained message."""

    __slots__ = ("_begun", "_clock", "_closing", "_counters", "_inbox", "_notices", "_permissions_of", "_retained",
                 "_sessions", "_subscriber", "_withdraw", "_work")  # fmt: skip

    def __init__(
        self, sessions: Sessions, subscriber: Subscriber, inbox: Inbox, closing: Closing, notices: Notices,
        permissions_of: Callable[[Key, tuple[str, ...], str], Permissions], clock: Callable[[], float], work: Work,
        retained: Retained, withdraw: Callable[[str, Sender], None], counters: BrokerCounters,
    ) -> None:
        self._counters = counters
        self._retained = retained
        self._withdraw = withdraw
        self._work = work
        self._sessions = sessions
        self._subscriber = subscriber
        self._inbox = inbox
        self._closing = closing
        self._notices = notices
        self._permissions_of = permissions_of
        self._clock = clock
        self._begun = 0  # how often the rules have changed

    def run(self) -> Iterator[int]:
        """The rules are known, or have changed. Yields now and then, with the steps of work that were done."""
        self._begun += 1
        begun = self._begun
        for session in self._sessions.all():
            yield _LOOK
            if self._begun != begun:
                return
            if session.inbox:
                self._adjust(session)
            if session.kind == TIER:
                continue
            roles = session.roles
            permissions = self._permissions_of(session.key, roles, session.provider)
            self._withhold(session, permissions)
            for filter, interest in list(session.interests.items()):
                if self._begun != begun:
                    return
                if session.roles is not roles:  # ``_review`` goes by the new ones
                    break
                yield self._check(session, filter, interest, permissions)

    def entitle(self, session: Session, permissions: Permissions) -> bool:
        """The client of a session has these permissions, and the roles in them, from now on. Returns whether it had
        other roles before."""
        self._withhold(session, permissions)
        sender = self._retained.sender(session.key)
        if sender is not None and sender.roles != permissions.roles:
            sender.roles = permissions.roles
        else:
            sender = None
        changed = session.roles != permissions.roles
        session.roles = permissions.roles
        if sender is not None:
            self._work.start(self._look_at(sender))
        if not changed:
            return False
        if session.interests:
            self._work.start(self._review(session))
        return True

    def _review(self, session: Session) -> Iterator[int]:
        """The roles of a client have changed."""
        roles = session.roles
        permissions = self._permissions_of(session.key, roles, session.provider)
        for filter, interest in list(session.interests.items()):
            if session.roles is not roles:
                return
            yield self._check(session, filter, interest, permissions)

    def retained(self) -> Iterator[int]:
        """The rules are known, or have changed: retained messages whose sender may not publish them now are deleted
        (CVE-2018-12546)."""
        for sender in self._retained.senders():
            yield from self._look_at(sender)
            yield _LOOK

    def _look_at(self, sender: Sender) -> Iterator[int]:
        for item, topic in list(sender.topics.items()):
            # Each time: a later change of the rules or of its roles may give the right again.
            session = self._sessions.get(sender.key)
            roles = sender.roles if session is None else session.roles
            permissions = self._permissions_of(sender.key, roles, sender.provider)
            if item in sender.topics and not permissions.may_publish(topic, 0, True):
                self._counters.revoked_retained += 1
                _, name, client = sender.key
                self._notices.warn(
                    "withdrawn", "%s (client %s) may no longer publish to %s: its retained message is deleted",
                    shortened(name), shortened(client), shortened(topic),
                )  # fmt: skip
                self._withdraw(topic, sender)
                yield _REMOVAL
            else:
                yield _CHECK

    def _withhold(self, session: Session, permissions: Permissions) -> None:
        refused = permissions.withheld()
        if refused != session.refused:
            session.refused = refused
            self._subscriber.subscriptions.leave_out()

    def _check(self, session: Session, filter: str, interest: Interest, permissions: Permissions) -> int:
        """End or lower a subscription that is not allowed. Returns the steps that it took."""
        most = permissions.most_qos(filter)
        # A session that has ended loses its subscriptions anyway.
        if most >= interest.subscription.qos or session.ended or session.interests.get(filter) is not interest:
            return _CHECK
        if most < 0:
            self._remove(session, filter)
        else:
            self._subscriber.lower(interest, most)
        return _REMOVAL

    def _remove(self, session: Session, filter: str) -> None:
        self._counters.revoked_subscriptions += 1
        _, name, client = session.key
        self._notices.warn(
            "revoked", "%s (client %s) is no longer allowed to subscribe to %s: its subscription has ended",
            shortened(name), shortened(client), shortened(filter),
        )  # fmt: skip
        self._subscriber.remove(session, filter)

    def _adjust(self, box: Session) -> None:
        """An inbox expires by the rules of today. Without rules it is kept as long as it was to be."""
        rules = self._inbox.rules
        if rules.vehicle_of is None or box.ended or box.expiry == rules.expiry:
            return
        made = self._clock() if box.expiry == FOREVER else box.ends - box.expiry
        box.expiry = rules.expiry
        self._sessions.detach(box, made)

    def expel(self, ends: Ends, told: Ended = ignore) -> Iterator[int]:
        """Close the connections of back ends for which ``ends`` gives a reason. Their sessions stay."""
        ended = 0
        for session in self._sessions.all():
            connection = session.connection
            if session.kind != BACKEND or connection is None:
                yield _LOOK
                continue
            _, name, client = session.key
            reason = ends(connection.principal.claim, connection.peer, client)
            if reason:
                ended += 1
                self._notices.warn(
                    "expelled", "the connection of back end %s (client %s) is closed: %s",
                    shortened(name), shortened(client), name_of(reason),
                )  # fmt: skip
                self._closing.expel(connection, reason)
                yield _REMOVAL
            else:
                yield _LOOK
        told(ended)
