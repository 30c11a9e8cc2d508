"""SUBSCRIBE and UNSUBSCRIBE: the subscriptions of sessions.

It knows permissions, limits and retained messages. What always holds: SUBACK leaves when the subscription is on disk
(for a durable session) and every node that must confirm it has done so; each refused filter gets its own reason code.

A packet with many filters takes several turns: both calls are iterators for ``work``. They end early if the connection
ends meanwhile; what the client was not told, it will ask for again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

from mesh.broker.catchup import CatchUp
from mesh.broker.courier import Courier
from mesh.broker.gate import Gate
from mesh.broker.inbox import Inbox
from mesh.broker.outbox import Outbox, explained
from mesh.broker.persistence import Persistence
from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.quotas import Quotas
from mesh.broker.session import Connection, Interest, Session
from mesh.broker.settings import Settings
from mesh.broker.sharing import Sharing
from mesh.broker.subscriptions import Subscriptions
from mesh.broker.system import SystemTopics
from mesh.wire import reasons
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, SUBACK, UNSUBACK, SubAck, Subscribe, Subscription, Unsubscribe
from mesh.wire.topics import is_shared

_MANY: Final = 32  # filters of one packet from which on their retained messages are looked for in later turns

# Steps of the work, see ``work``.
_FILTER: Final = 16  # of a filter, besides one for each of its levels
_FIGURES: Final = 64  # of $SYS that are compared with a filter


@final
class Subscriber:
    """``fail`` closes a connection with a reason code."""

    def __init__(
        self,
        settings: Settings,
        subscriptions: Subscriptions,
        catch_up: CatchUp,
        inbox: Inbox,
        persistence: Persistence,
        outbox: Outbox,
        courier: Courier,
        sharing: Sharing,
        system: SystemTopics,
        fail: Callable[[Connection, int, str], None],
        quotas: Quotas,
    ) -> None:
        self.quotas = quotas
        self.settings = settings
        self.subscriptions = subscriptions
        self.catch_up = catch_up
        self.inbox = inbox
        self.persistence = persistence
        self.store = persistence.store
        self.outbox = outbox
        self.courier = courier
        self.sharing = sharing
        self.system = system
        self._fail = fail

    def subscribe(self, connection: Connection, session: Session, packet: Subscribe) -> Iterator[int]:
        identifiers = [] if packet.properties is None else packet.properties.subscription_ids
        identifier = identifiers[0] if identifiers else 0
        many = len(packet.subscriptions) >= _MANY
        codes: list[int] = []
        fresh: list[tuple[Interest, bool]] = []
        gate: Gate | None = None
        for subscription in packet.subscriptions:
            if subscription.no_local and is_shared(subscription.filter):
                why = "a shared subscription cannot have No Local"
                self._fail(connection, reasons.PROTOCOL_ERROR, why)  # [MQTT-3.8.3-4]
                return
            code = self._may_subscribe(connection, session, subscription)
            if not reasons.is_error(code):
                subscription.qos = code
                brings = _brings_retained(subscription, subscription.filter in session.interests)
                interest = self.add(session, subscription, identifier, many and brings)
                fresh.append((interest, brings))
                gate = self.subscriptions.listener.gate(subscription.filter) or gate
            codes.append(code)
            yield _steps_of(subscription.filter)
            if connection.session is not session:
                return
        if not self._answer(connection, session, SubAck(SUBACK, packet.packet_id, codes), gate):
            return
        for interest, brings in fresh:
            if brings and self._send_figures(interest) and many:
                yield _FIGURES
                if connection.session is not session:
                    return
            if brings and not many:
                self.catch_up.begin(interest)
        self.sharing.arrived(session)
        if connection.principal.kind == VEHICLE:
            self.inbox.hand_over(session)
        self.courier.pump(session, connection)

    def refuse(self, connection: Connection, session: Session, packet: Subscribe | Unsubscribe) -> None:
        """Refuse all of a SUBSCRIBE or UNSUBSCRIBE. (UNSUBACK has no reason codes before 5.0.)"""
        code = reasons.IMPLEMENTATION_SPECIFIC_ERROR
        if isinstance(packet, Subscribe):
            answer = SubAck(SUBACK, packet.packet_id, [code] * len(packet.subscriptions))
        else:
            codes = [code] * len(packet.filters) if connection.protocol == MQTT5 else []
            answer = SubAck(UNSUBACK, packet.packet_id, codes)
        self._answer(connection, session, answer, None)

    def _answer(self, connection: Connection, session: Session, answer: SubAck, gate: Gate | None) -> bool:
        """Write the answer when the change is durable and ``gate`` is open; close the connection if the answer exceeds
        the client's maximum packet size [MQTT-3.1.2-24]."""
        failed = any(reasons.is_error(code) for code in answer.reasons)
        if failed and connection.problem_info and connection.protocol == MQTT5:
            answer.properties = explained("a filter is not allowed for this client, or the session is at a limit")
        data = encode(answer, connection.protocol)
        if connection.max_packet and len(data) > connection.max_packet:
            answer.properties = None
            data = encode(answer, connection.protocol)
            if len(data) > connection.max_packet:
                self._fail(connection, reasons.PACKET_TOO_LARGE, "")
                return False
        self.outbox.write_after(connection, self.store.position if session.durable else 0, data, gate)
        return True

    def _may_subscribe(self, connection: Connection, session: Session, subscription: Subscription) -> int:
        permissions = connection.principal.permissions
        most = permissions.most_qos(subscription.filter)
        if most < 0:
            return permissions.reason
        full = len(session.interests) >= self.settings.max_subscriptions
        if full and subscription.filter not in session.interests:
            return reasons.QUOTA_EXCEEDED
        known = subscription.filter in session.interests
        if not known and not self._has_room(session, subscription.filter):
            return reasons.QUOTA_EXCEEDED
        return min(subscription.qos, most)

    def _has_room(self, session: Session, filter: str) -> bool:
        """Whether the limits of the owner and of the node allow one more subscription. Those of a core are never
        refused: each back end's was within the limits of its core."""
        if not self.quotas.may_subscribe(session.share, filter):
            return False
        most = self.settings.match_nodes
        if session.kind == TIER or self.subscriptions.fits(filter, most):
            return True
        why = f"a topic would have to be compared with more than {most} filters and parts of filters"
        self.quotas.refuse_subscription(session.share, filter, f"{why} (limits.match_nodes)")
        return False

    def add(self, session: Session, subscription: Subscription, identifier: int, owed: bool = False) -> Interest:
        """Add a subscription. It replaces one of the same session to the same filter [MQTT-3.8.4-3]. ``owed``: the
        retained messages that it matches are due."""
        old = session.interests.get(subscription.filter)
        interest = Interest(session, subscription, identifier)
        if owed:
            self.catch_up.owe(interest)
        if session.durable:
            self.persistence.keep_interest(interest)
        if old is not None:
            self.subscriptions.replace(old, interest)
            self.catch_up.forget(old)
            self.persistence.forget_interest(old)
        else:
            self.subscriptions.add(interest)
            self.quotas.subscribed(session.share, subscription.filter)
        session.interests[subscription.filter] = interest
        return interest

    def lower(self, interest: Interest, qos: int) -> None:
        """A subscription has at most this QoS from now on."""
        interest.subscription.qos = qos
        self.subscriptions.replace(interest, interest)
        old = interest.item
        if old:
            self.persistence.keep_interest(interest)
            self.store.drop(old)

    def _send_figures(self, interest: Interest) -> bool:
        """Send the current values of the ``$SYS`` topics, which are in memory only. Returns whether there may be some.
        """
        session, subscription = interest.session, interest.subscription
        if session.kind == TIER or not subscription.filter.startswith("$"):
            return False
        identifiers = (interest.identifier,) if interest.identifier else ()
        for message in self.system.matching(subscription.filter):
            if not self.subscriptions.withholds(session, message.topic):
                self.courier.offer(session, message, 0, True, identifiers, None)
        return True

    def unsubscribe(self, connection: Connection, session: Session, packet: Unsubscribe) -> Iterator[int]:
        codes: list[int] = []
        for filter in packet.filters:
            yield _steps_of(filter)
            if connection.session is not session:
                return
            codes.append(reasons.SUCCESS if self.remove(session, filter) else reasons.NO_SUBSCRIPTION_EXISTED)
        answer = SubAck(UNSUBACK, packet.packet_id, codes if connection.protocol == MQTT5 else [])
        self._answer(connection, session, answer, None)

    def remove(self, session: Session, filter: str) -> bool:
        """End a subscription of a session. Returns whether there was one."""
        interest = session.interests.pop(filter, None)
        if interest is None:
            return False
        self.subscriptions.remove(interest)
        self.quotas.unsubscribed(session.share, filter)
        self.catch_up.forget(interest)
        self.persistence.forget_interest(interest)
        group = self.subscriptions.group(filter, session.kind == TIER)
        if group is not None:
            self.sharing.left(session, group)
        return True


def _brings_retained(subscription: Subscription, known: bool) -> bool:
    """Whether a subscription brings retained messages. ``known``: the session had it already."""
    if subscription.retain_handling == 2 or (subscription.retain_handling == 1 and known):
        return False  # [MQTT-3.3.1-10] [MQTT-3.3.1-11]
    return not is_shared(subscription.filter)  # section 4.8.2


def _steps_of(filter: str) -> int:
    """The steps of the work that it takes to add or remove a filter."""
    return _FILTER + filter.count("/")
