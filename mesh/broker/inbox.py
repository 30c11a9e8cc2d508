"""The inbox of a vehicle: messages that wait for a vehicle that has no session yet.

The topology names subscriptions that every vehicle is assumed to have. A message that matches one of them, and that no
session of the vehicle takes, waits in the vehicle's inbox. The first client of the vehicle gets it: at CONNECT without
clean start, or when it subscribes. What always holds: an inbox is a durable session with limits of its own and an empty
client id, which no client can have; no newer message for a session overtakes those that it gets from the inbox.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

from mesh.broker.courier import Courier
from mesh.broker.persistence import Persistence
from mesh.broker.principal import VEHICLE
from mesh.broker.quotas import Quotas
from mesh.broker.session import Key, Session
from mesh.broker.sessions import Sessions
from mesh.broker.settings import Settings
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.wire.packets import Subscription
from mesh.wire.reasons import NO_MATCHING_SUBSCRIBERS, QUOTA_EXCEEDED, SUCCESS
from mesh.wire.topics import matches

_MOVE: Final = 16  # steps of a message that is read from the journal and written again, see ``work``


class InboxRules:
    """Which topics go into which inbox. The default has no inboxes; an edge takes the rules from the topology."""

    def __init__(
        self,
        vehicle_of: Callable[[str], str | None] | None = None,
        subscriptions_of: Callable[[str], list[Subscription]] | None = None,
        expiry: int = 0,
    ) -> None:
        self.vehicle_of = vehicle_of
        self.subscriptions_of = subscriptions_of
        self.expiry = expiry  # seconds that an inbox is kept

    def in_force(self) -> dict[str, object]:
        """The rules, with the subscriptions of a vehicle ``VEHICLE``; empty if there are no inboxes."""
        if self.subscriptions_of is None:
            return {}
        found = self.subscriptions_of("VEHICLE")
        return {
            "subscribe": [item.filter for item in found], "qos": sorted({item.qos for item in found}),
            "expiry": self.expiry,
        }  # fmt: skip

    def subscription_for(self, vehicle: str, topic: str) -> Subscription | None:
        """The inbox subscription of ``vehicle`` that matches ``topic``."""
        if self.subscriptions_of is None:
            return None
        for subscription in self.subscriptions_of(vehicle):
            if matches(subscription.filter, topic):
                return subscription
        return None


@final
class Inbox:
    """Inboxes of all vehicles of an edge. ``rules`` may be replaced: what waits in an inbox then stays, and goes to the
    first client of the vehicle. ``move`` is called with a session and what moves messages into it, in slices:
    newer messages for it wait meanwhile."""

    __slots__ = ("_moving", "clock", "courier", "move", "persistence", "quotas", "rules", "sessions", "settings")

    def __init__(
        self,
        rules: InboxRules,
        sessions: Sessions,
        persistence: Persistence,
        courier: Courier,
        clock: Callable[[], float],
        settings: Settings,
        quotas: Quotas,
    ) -> None:
        self.quotas = quotas
        self.move: Callable[[Session, Iterator[int]], None] = _ignore
        self._moving: set[Session] = set()  # inboxes whose messages are being handed over
        self.rules = rules
        self.sessions = sessions
        self.persistence = persistence
        self.courier = courier
        self.clock = clock
        self.settings = settings

    def offer(self, message: Message, receipt: Receipt | None) -> int:
        """Queue a message that no session of its vehicle took. Returns the reason code for its publisher."""
        rules = self.rules
        if rules.vehicle_of is None or message.qos == 0:
            return NO_MATCHING_SUBSCRIBERS
        vehicle = rules.vehicle_of(message.topic)
        if vehicle is None:
            return NO_MATCHING_SUBSCRIBERS
        subscription = rules.subscription_for(vehicle, message.topic)
        if subscription is None or subscription.qos == 0:
            return NO_MATCHING_SUBSCRIBERS
        box = self._box(vehicle)
        if box is None:
            return QUOTA_EXCEEDED
        return self.courier.offer(box, message, min(message.qos, subscription.qos), False, (), receipt)

    def box(self, topic: str) -> Session | None:
        """The inbox of the vehicle of a topic, if there is one."""
        vehicle = None if self.rules.vehicle_of is None else self.rules.vehicle_of(topic)
        return None if vehicle is None else self.sessions.get((VEHICLE, vehicle, ""))

    def _box(self, vehicle: str) -> Session | None:
        key = (VEHICLE, vehicle, "")
        box = self.sessions.get(key)
        if box is None:
            if self.sessions.refuses(key, False) != SUCCESS:
                return None
            box = self.sessions.create(key, vehicle, self.settings.in_flight)
            box.durable = True
            box.expiry = self.rules.expiry
            self.sessions.detach(box, self.clock())
        return box

    def subscribe(self, session: Session) -> list[Subscription]:
        """The subscriptions that a new session of a vehicle starts with."""
        rules = self.rules
        return rules.subscriptions_of(session.vehicle) if rules.subscriptions_of is not None else []

    def adopt(self, key: Key, vehicle: str) -> Session | None:
        """Make the vehicle's inbox the new session of its client ``key``, with the messages that wait in it, whatever
        their number; ``None`` if there is no inbox."""
        box = self.sessions.get((VEHICLE, vehicle, ""))
        if box is not None:
            self.sessions.rename(box, key)
        return box

    def take_back(self, session: Session) -> None:
        """The client of an adopted inbox cannot be accepted: its session is the inbox again."""
        self.sessions.rename(session, (VEHICLE, session.vehicle, ""))
        session.expiry = self.rules.expiry

    def hand_over(self, session: Session) -> None:
        """Begin to move the messages of the vehicle's inbox to ``session``, whatever their number: its queue exceeds
        its limits by at most those of the inbox."""
        box = self.sessions.get((VEHICLE, session.vehicle, ""))
        if box is not None and box is not session and box not in self._moving:
            self._moving.add(box)
            self.move(session, self._hand_over(box, session))

    def _hand_over(self, box: Session, session: Session) -> Iterator[int]:
        waiting = box.outbound.waiting
        try:
            while waiting and not session.ended and not box.ended:
                delivery = waiting.first()
                self.courier.offer_above(session, self.persistence.load(delivery), delivery.qos, False, (), None, "")
                box.outbound.drop_head()
                self.persistence.forget(delivery)
                yield _MOVE
        finally:
            self._moving.discard(box)
        if not waiting and not box.ended:
            self.sessions.end(box)
        if session.connection is not None:
            self.courier.pressure.bound(session)


def _ignore(_session: Session, _moving: Iterator[int]) -> None:
    """Nothing waits."""
