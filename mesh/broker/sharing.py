"""Shared subscriptions whose members leave or stall: other members get the messages that they have not acknowledged.

It knows groups, members and their queues: never packets. What always holds:

* a message enters the new member's queue before it leaves the old one's: a crash in between repeats it and does not
  lose it;
* a message that was sent with QoS 2 stays with its receiver; no other member may get it [MQTT-4.8.2-4]
  [MQTT-4.8.2-5];
* a message that a member has refused goes to no other member [MQTT-4.8.2-6].
"""

from __future__ import annotations

from typing import final

from mesh.broker.courier import Courier
from mesh.broker.persistence import Persistence
from mesh.broker.session import Session
from mesh.broker.settings import Settings
from mesh.broker.subscriptions import SharedGroup, Subscriptions
from mesh.session.outbound import Delivery
from mesh.wire.reasons import SUCCESS


@final
class Sharing:
    """``check`` is called once a second."""

    __slots__ = ("_seen", "courier", "persistence", "settings", "subscriptions")

    def __init__(
        self, settings: Settings, subscriptions: Subscriptions, persistence: Persistence, courier: Courier
    ) -> None:
        self.settings = settings
        self.subscriptions = subscriptions
        self.persistence = persistence
        self.courier = courier
        self._seen: dict[Session, tuple[int, float]] = {}  # deliveries that each member has finished, and since when

    def leaves(self, session: Session) -> None:
        """The session is about to end."""
        if session.shared:
            self._seen.pop(session, None)
            for group in self.subscriptions.groups_of(session):
                self._move(session, group, False)

    def left(self, session: Session, group: SharedGroup) -> None:
        """The session has unsubscribed from the group, and continues."""
        self._move(session, group, session.connection is not None)

    def detached(self, session: Session) -> None:
        """A member has lost its connection: move its waiting messages to members that are connected."""
        if session.shared:
            for group in self.subscriptions.groups_of(session):
                if _has_connected(group, session):
                    self._move(session, group, False)

    def arrived(self, session: Session) -> None:
        """A member has connected or subscribed: give it the messages that wait for disconnected members."""
        if session.shared:
            for group in self.subscriptions.groups_of(session):
                for member in list(group.members):
                    other = member.session
                    if other is not session and other.connection is None and other.outbound.waiting:
                        self._move(other, group, False)

    def check(self, now: float) -> None:
        """Find members that have acknowledged nothing for ``shared_patience`` seconds, and those that do again."""
        seen: dict[Session, tuple[int, float]] = {}
        for group in self.subscriptions.groups():
            for member in group.members:
                session = member.session
                outbound = session.outbound
                if session.connection is None or not outbound.in_flight:
                    session.stalled = False
                    continue
                finished, since = self._seen.get(session, (-1, now))
                if finished != outbound.finished:
                    since = now
                    session.stalled = False
                seen[session] = (outbound.finished, since)
                if now - since >= self.settings.shared_patience:
                    session.stalled = True
                    if _has_connected(group, session):
                        self._move(session, group, True)
        self._seen = seen

    def _move(self, session: Session, group: SharedGroup, connected: bool) -> None:
        """Move the group's messages from ``session`` to other members, as far as they have room."""
        moved: set[Delivery] = set()
        for delivery in session.outbound.movable({group.full}):
            target = group.choose(session)
            if target is None:
                break
            message = self.persistence.load(delivery)
            qos = min(message.qos, target.qos)
            identifiers = target.identifiers
            offered = self.courier.offer(target.session, message, qos, delivery.retain, identifiers, None, group.full)
            if offered != SUCCESS:
                break  # it is full; to go on would change the order of the messages that are left
            moved.add(delivery)
        if moved:
            session.outbound.withdraw(moved, connected)
            for delivery in moved:
                self.persistence.forget(delivery)


def _has_connected(group: SharedGroup, session: Session) -> bool:
    """Whether the group has another member that is connected and not stalled."""
    for member in group.members:
        other = member.session
        if other is not session and other.connection is not None and not other.stalled:
            return True
    return False
