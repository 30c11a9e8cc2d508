"""Shared subscriptions whose members leave or stall: other members get the messages that they have not acknowledged.

It knows groups, members and their queues: never packets. What always holds:

* a message enters the new member's queue before it leaves the old one's: a crash in between repeats it and does not
  lose it;
* a message that was sent with QoS 2 stays with its receiver; no other member may get it [MQTT-4.8.2-4]
  [MQTT-4.8.2-5];
* a message that a member has refused goes to no other member [MQTT-4.8.2-6].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

from mesh.broker.courier import Courier
from mesh.broker.persistence import Persistence
from mesh.broker.quotas import Quotas
from mesh.broker.session import Session
from mesh.broker.settings import Settings
from mesh.broker.subscriptions import SharedGroup, Subscriptions
from mesh.broker.work import Work
from mesh.session.outbound import Delivery, packet_id_of
from mesh.wire.reasons import SUCCESS

# Steps of the work, see ``work``.
_LOOK: Final = 1  # at a member, or at a delivery that does not move
_MOVE: Final = 32  # of a message: its body is read from the journal and written again


@final
class Sharing:
    """``check`` is called once a second."""

    __slots__ = (
        "_checking", "_moving", "_seen", "courier", "persistence", "quotas", "settings", "subscriptions", "work",
    )  # fmt: skip

    def __init__(
        self, settings: Settings, subscriptions: Subscriptions, persistence: Persistence, courier: Courier, work: Work,
        quotas: Quotas,
    ) -> None:
        self.quotas = quotas
        self.settings = settings
        self.subscriptions = subscriptions
        self.persistence = persistence
        self.courier = courier
        self.work = work
        self._checking = False
        self._moving: dict[Session, int] = {}  # sessions whose messages are being moved, and by how many jobs
        self._seen: dict[Session, tuple[int, float]] = {}  # deliveries that each member has finished, and since when

    def left(self, session: Session, group: SharedGroup) -> None:
        """The session has unsubscribed from the group, and continues."""
        self.work.start(self.move(session, group))

    def detached(self, session: Session) -> None:
        """A member has lost its connection: move its waiting messages to members that are connected."""
        if session.shared:
            self.work.start(self._move_if_connected(session))

    def _move_if_connected(self, session: Session) -> Iterator[int]:
        for group in self.subscriptions.groups_of(session):
            if _has_connected(group, session):
                yield from self.move(session, group)

    def arrived(self, session: Session) -> None:
        """A member has connected or subscribed: give it the messages that wait for disconnected members."""
        if session.shared:
            self.work.start(self._move_to_others(session))

    def _move_to_others(self, session: Session) -> Iterator[int]:
        for group in self.subscriptions.groups_of(session):
            for member in list(group.members):
                other = member.session
                yield _LOOK
                if other is not session and other.connection is None and other.outbound.waiting:
                    yield from self.move(other, group)

    def check(self, now: float) -> None:
        """Find members that have acknowledged nothing for ``shared_patience`` seconds, and those that do again."""
        if self._checking:
            return
        if self.subscriptions.has_groups():
            self._checking = True
            self.work.start(self._check(now))
        else:
            self._seen.clear()

    def _check(self, now: float) -> Iterator[int]:
        seen: dict[Session, tuple[int, float]] = {}
        try:
            for group in self.subscriptions.groups():
                for member in list(group.members):
                    yield _LOOK
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
                            yield from self.move(session, group)
            self._seen = seen
        finally:
            self._checking = False

    def move(self, session: Session, group: SharedGroup) -> Iterator[int]:
        """Move the group's messages from ``session`` to other members, as far as they have room: those in flight, then
        those that wait, in order. ``session`` may be connected, may connect meanwhile, or may have ended."""
        moving = self._moving
        moving[session] = moving.get(session, 0) + 1
        try:
            yield from self._move_all(session, group)
        finally:
            moving[session] -= 1
            if not moving[session]:
                del moving[session]
                session.outbound.waiting.tidy()

    def _move_all(self, session: Session, group: SharedGroup) -> Iterator[int]:
        outbound = session.outbound
        for delivery in outbound.sent_of(group.full):
            if outbound.in_flight.get(packet_id_of(delivery.number)) is delivery and outbound.movable(
                delivery, group.full
            ):
                if not self._move(session, group, delivery, -1):
                    return
                yield _MOVE
        waiting = outbound.waiting
        place = waiting.begin()
        while place < waiting.end():
            place = max(place, waiting.begin())
            waiting_delivery = waiting.at(place)
            if waiting_delivery is not None and outbound.movable(waiting_delivery, group.full):
                if not self._move(session, group, waiting_delivery, place):
                    return
                yield _MOVE
            else:
                yield _LOOK
            place += 1

    def _move(self, session: Session, group: SharedGroup, delivery: Delivery, place: int) -> bool:
        """Move one delivery; ``False`` if no other member takes it: to go on would change the order of the rest."""
        target = group.choose(session)
        if target is None:
            return False
        message = self.persistence.load(delivery)
        qos = min(message.qos, target.qos)
        self.quotas.moving = True
        offered = self.courier.offer(
            target.session, message, qos, delivery.retain, target.identifiers, None, group.full
        )
        self.quotas.moving = False
        if offered != SUCCESS:
            return False
        session.outbound.withdraw(delivery, place, session.connection is not None)
        self.persistence.forget(delivery)
        return True


def _has_connected(group: SharedGroup, session: Session) -> bool:
    """Whether the group has another member that is connected and not stalled."""
    for member in group.members:
        other = member.session
        if other is not session and other.connection is not None and not other.stalled:
            return True
    return False
