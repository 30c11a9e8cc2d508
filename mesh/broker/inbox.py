"""The inbox of a vehicle: messages that wait for a vehicle that has no session yet.

The topology names subscriptions that every vehicle is assumed to have. A message that matches one of them, and that no
session of the vehicle takes, waits in the vehicle's inbox. The first client of the vehicle gets it: at CONNECT without
clean start, or when it subscribes. What always holds: an inbox is a durable session with limits of its own and an empty
client id, which no client can have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from mesh.broker.courier import Courier
from mesh.broker.persistence import Persistence
from mesh.broker.principal import VEHICLE
from mesh.broker.quotas import Quotas
from mesh.broker.session import Key, Session
from mesh.broker.sessions import Sessions
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.wire.packets import Subscription
from mesh.wire.reasons import NO_MATCHING_SUBSCRIBERS, QUOTA_EXCEEDED, SUCCESS
from mesh.wire.topics import matches


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
    """Inboxes of all vehicles of an edge."""

    __slots__ = ("clock", "courier", "persistence", "quotas", "rules", "sessions", "window")

    def __init__(
        self,
        rules: InboxRules,
        sessions: Sessions,
        persistence: Persistence,
        courier: Courier,
        clock: Callable[[], float],
        window: int,
        quotas: Quotas,
    ) -> None:
        self.quotas = quotas
        self.rules = rules
        self.sessions = sessions
        self.persistence = persistence
        self.courier = courier
        self.clock = clock
        self.window = window

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
            box = self.sessions.create(key, vehicle, self.window)
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
        """Move the messages of the vehicle's inbox to ``session``, as far as its queue has room."""
        box = self.sessions.get((VEHICLE, session.vehicle, ""))
        if box is None or box is session:
            return
        waiting = box.outbound.waiting
        while waiting:
            delivery = waiting.first()
            message = self.persistence.load(delivery)
            self.quotas.moving = True
            taken = self.courier.offer(session, message, delivery.qos, False, (), None)
            self.quotas.moving = False
            if taken != SUCCESS:
                return
            box.outbound.drop_head()
            self.persistence.forget(delivery)
        self.sessions.end(box)
