"""Shared subscriptions whose members leave or stall: what they have not acknowledged goes to the others.

It knows groups, members and their queues: never packets. What always holds:

* a message is put into the new member's queue before it is taken out of the old one's: a crash in between repeats it
  and does not lose it;
* what was sent with QoS 2 stays with its receiver, for nobody else may get it [MQTT-4.8.2-4] [MQTT-4.8.2-5];
* a member that has refused a message has had it [MQTT-4.8.2-6].
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
    """``look`` is called once a second."""

    __slots__ = ("_seen", "courier", "persistence", "settings", "subscriptions")

    def __init__(
        self, settings: Settings, subscriptions: Subscriptions, persistence: Persistence, courier: Courier
    ) -> None:
        self.settings = settings
        self.subscriptions = subscriptions
        self.persistence = persistence
        self.courier = courier
        self._seen: dict[Session, tuple[int, float]] = {}  # how many each member had acknowledged, and since when

    def leaves(self, session: Session) -> None:
        """The session is about to end."""
        if session.shared:
            self._seen.pop(session, None)
            for group in self.subscriptions.groups_of(session):
                self._move(session, group, False)

    def left(self, session: Session, group: SharedGroup) -> None:
        """The session was unsubscribed from the group, and lives on."""
        self._move(session, group, session.connection is not None)

    def detached(self, session: Session) -> None:
        """The member's connection is gone: what waits goes to members that are connected."""
        if session.shared:
            for group in self.subscriptions.groups_of(session):
                if _has_connected(group, session):
                    self._move(session, group, False)

    def arrived(self, session: Session) -> None:
        """A member is connected, or new: it gets what waits for members that are not."""
        if session.shared:
            for group in self.subscriptions.groups_of(session):
                for member in list(group.members):
                    other = member.session
                    if other is not session and other.connection is None and other.outbound.waiting:
                        self._move(other, group, False)

    def look(self, now: float) -> None:
        """Find members that have not acknowledged anything for long, and those that do again."""
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
        """Give what ``session`` has of the group to other members, as far as they have room."""
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
                break  # full, and the next one would only be put before those that are left
            moved.add(delivery)
        if moved:
            session.outbound.withdraw(moved, connected)
            for delivery in moved:
                self.persistence.forget(delivery)


def _has_connected(group: SharedGroup, session: Session) -> bool:
    """Whether the group has a member besides ``session`` that could be served."""
    for member in group.members:
        other = member.session
        if other is not session and other.connection is not None and not other.stalled:
            return True
    return False
