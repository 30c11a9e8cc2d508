"""From a message to its receivers on this node, and to the retained messages.

It knows subscriptions, retained messages and inboxes: never packets or connections. What always holds: a message that
came over a tier link never leaves over one (split horizon); the journal keeps one body of a message for several durable
sessions. A message for very many receivers reaches them in portions (``fanout``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from mypy_extensions import mypyc_attr

from mesh.broker.catchup import CatchUp
from mesh.broker.counters import BrokerCounters
from mesh.broker.courier import Courier
from mesh.broker.fanout import FanOuts
from mesh.broker.inbox import Inbox
from mesh.broker.notices import Notices, shortened
from mesh.broker.peer import Peer
from mesh.broker.persistence import Persistence
from mesh.broker.place import Place
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Permissions
from mesh.broker.refusals import Missed, Refusals
from mesh.broker.retained import Retained
from mesh.broker.sender import Sender
from mesh.broker.session import Key, Session
from mesh.broker.subscriptions import Route, RouteTarget, SharedGroup, Subscriptions
from mesh.broker.versions import Tombstones, Version, just_after
from mesh.broker.work import Work
from mesh.session.inbound import Receipt
from mesh.session.message import Message, message_of
from mesh.wire import reasons
from mesh.wire.packets import Publish, Will


@mypyc_attr(allow_interpreted_subclasses=True)
class Forwarder:
    """Sends the publishes of back ends to other nodes. This one sends nothing; the core's sends to the edges."""

    def forward(self, message: Message, receipt: Receipt | None) -> None:
        """Send ``message`` on. ``pending``, ``position`` and ``note`` of the receipt say what its answer waits for."""

    def withdraw(self, topic: str, time: float) -> None:
        """Have the copies of a retained message deleted that was forwarded, and was published at ``time``. The message
        itself is dropped after this call."""


def _not_silenced(_key: Key, _origin: Peer) -> bool:
    return False


@final
class Dispatcher:
    """Gives messages to sessions through ``courier``, and those of back ends to ``forwarder``. ``silenced`` says by the
    key of a session, and by where its client was connected from, whether its will must not be published, because the
    client is banned."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        retained: Retained,
        catch_up: CatchUp,
        inbox: Inbox,
        persistence: Persistence,
        courier: Courier,
        refusals: Refusals,
        forwarder: Forwarder,
        clock: Callable[[], float],
        fan_out: int,
        work: Work,
        answered: Callable[[Receipt], None],
        permissions_of: Callable[[Key, tuple[str, ...], str], Permissions],
        notices: Notices,
        counters: BrokerCounters,
    ) -> None:
        self._permissions_of = permissions_of
        self._notices = notices
        self._counters = counters
        self.silenced: Callable[[Key, Peer], bool] = _not_silenced
        self.subscriptions = subscriptions
        self.retained = retained
        self.catch_up = catch_up
        self.inbox = inbox
        self.persistence = persistence
        self.store = persistence.store
        self.courier = courier
        self.refusals = refusals
        self.forwarder = forwarder
        self.clock = clock
        self.tombstones = Tombstones(persistence)
        self.at_once = fan_out
        self.fan_outs = FanOuts(persistence, refusals, work, self._find, self._fan, answered)

    def has_room(self, message: Message, source: Session) -> bool:
        """With ``hold``: whether the receivers on this node may take a message."""
        route = self.subscriptions.route(message.topic)
        members = [member for group in route.groups for member in group.members]
        return self.refusals.has_room(message, source, route.targets + members)

    def route(
        self, message: Message, source: Session | None, receipt: Receipt | None, published: float = 0.0
    ) -> int:
        """Queue ``message`` for all its receivers on this node. Returns the reason code for its publisher.
        ``published``: when a core has published it, if that is to be kept with a retained message."""
        if not self._retain(message, receipt, source, published):
            return self._refuse(message, source, receipt)
        route = self.subscriptions.route(message.topic)
        return self._fan_out(message, source, receipt, route, route.groups)

    def _refuse(self, message: Message, source: Session | None, receipt: Receipt | None) -> int:
        """There is no room for a retained message. Returns the reason code for its publisher."""
        if message.qos == 0:
            self.courier.dropped(message)
            return reasons.QUOTA_EXCEEDED
        self.refusals.refuse(message, receipt, reasons.QUOTA_EXCEEDED, source)
        return reasons.SUCCESS if receipt is None else receipt.reason

    def deliver_upstream(
        self, message: Message, receipt: Receipt | None, plain: bool, shared: list[SharedGroup]
    ) -> int:
        """Queue a message that an edge sent to this core: for the plain subscribers, for shared groups, or both.

        The vehicle has its acknowledgement already. So at a limit of retained messages this core keeps no copy for
        later subscribers, and the present ones get the message.
        """
        if plain:
            if not self._retain(message, receipt, None):
                self.retained.discard(message.topic)
            return self._fan_out(message, None, receipt, self.subscriptions.route(message.topic), shared)
        message.fan_out = len(shared) > 1
        if len(shared) > self.at_once or self.fan_outs.busy:
            place = Place(False, [group.full for group in shared])
            if self._fans_out(message, None, receipt, Route([], shared), place):
                return reasons.NO_MATCHING_SUBSCRIBERS
        result = reasons.NO_MATCHING_SUBSCRIBERS
        for group in shared:
            chosen = group.choose()
            if chosen is not None:
                result = self._deliver(chosen, message, receipt, group.full)
                if reasons.is_error(result):
                    missed = [Missed(chosen.session, chosen, group.full)]
                    result = self.refusals.settle(message, None, receipt, missed, False)
        return result

    def refresh_retained(self, message: Message, receipt: Receipt | None, filter: str) -> int:
        """Take a retained message that an edge has for ``filter``, and queue it for the subscribers to ``filter`` if it
        differs from the one known here."""
        known = self.retained.get(message.topic)
        if known is not None and _same(known, message):
            return reasons.SUCCESS
        if not self._retain(message, receipt, None):
            self.retained.discard(message.topic)
            return reasons.QUOTA_EXCEEDED
        for target in self.subscriptions.route(message.topic).targets:
            interest = target.session.interests.get(filter)
            if interest is not None:
                self.catch_up.queue_retained_update(interest, message.topic)
        if receipt is not None:
            receipt.position = self.store.position
        return reasons.SUCCESS

    def take_versioned(self, message: Message, source: Session, receipt: Receipt | None, version: Version) -> int:
        """Take a retained message of a core, or its withdrawal (see ``versions``)."""
        if version.withdrawn:
            self._take_back(message.topic, version)
            result = reasons.SUCCESS
        elif version.fleet:
            result = self._take_fleet(message, source, receipt, version)
        else:
            return self.route(message, source, receipt, version.time)
        if receipt is not None:
            receipt.position = max(receipt.position, self.store.position)
        return result

    def _take_back(self, topic: str, version: Version) -> None:
        """A core withdraws a message. What this edge has by now may be another one."""
        known = self.retained.get(topic)
        if known is None or not known.from_tier or known.received != version.time:
            return
        self.retained.discard(topic)
        if version.fleet:
            self.tombstones.add(topic, max(just_after(version.time), self.tombstones.time(topic)))

    def _take_fleet(self, message: Message, source: Session, receipt: Receipt | None, version: Version) -> int:
        """One that is *given* counts only if this edge has nothing later of its topic; the subscribers get it if it
        differs from what they have."""
        topic, time = message.topic, version.time
        known = self.retained.get(topic)
        latest = self.tombstones.time(topic)
        if known is not None:
            latest = max(latest, known.received)
        if version.given and time <= latest:
            return reasons.SUCCESS
        if version.given and known is not None and _same(known, message):
            result = reasons.SUCCESS
            self._retain(message, None, source, time)
        else:
            result = self.route(message, source, receipt, time)
        if reasons.is_error(result):
            return result
        if not message.payload or latest > time:  # by a clock that is ahead: what is given must be later than that
            self.tombstones.add(topic, max(time, latest))
        else:
            self.tombstones.remove(topic)
        return result

    def note_fleet(self, message: Message) -> None:
        """A back end of this core has published a retained message on a fleet-wide topic, or deleted it."""
        if message.payload:
            self.tombstones.remove(message.topic)
        else:
            self.tombstones.add(message.topic, message.received)

    def forget_retained(self, filter: str) -> None:
        """The last client has unsubscribed from ``filter``, so the edges send no updates for it: remove the retained
        messages that they sent for it."""
        self.retained.forget_upstream(filter, self.subscriptions.follows)

    def _retain(
        self, message: Message, receipt: Receipt | None, source: Session | None, published: float = 0.0
    ) -> bool:
        if message.retain:
            if source is None:
                position = self.retained.keep(message)
            elif published:
                arrived, message.received = message.received, published
                position = self.retained.keep(message, source.share)
                message.received = arrived
            else:
                key = None if source.kind == TIER else source.key
                position = self.retained.keep(message, source.share, key, source.roles, source.provider)
            if position < 0:
                return False
            if receipt is not None and position > receipt.position:
                receipt.position = position
        return True

    def _fan_out(
        self,
        message: Message,
        source: Session | None,
        receipt: Receipt | None,
        route: Route,
        groups: list[SharedGroup],
    ) -> int:
        if len(route.targets) + len(groups) > self.at_once or self.fan_outs.busy:
            place = Place()
            if groups is not route.groups and (groups or route.groups):
                route = Route(route.targets, groups)
                place.groups = [group.full for group in groups]
            if self._fans_out(message, source, receipt, route, place):
                return reasons.NO_MATCHING_SUBSCRIBERS
        targets = self._receivers(route.targets, message, source)
        plain = len(targets)  # the rest are members of these groups
        by: list[str] = []
        for shared in groups:
            if message.from_tier and shared.of_cores:
                continue
            chosen = shared.choose()
            if chosen is not None:
                targets = [*targets, chosen]
                by.append(shared.full)
        if len(targets) > 1:
            message.fan_out = True
            if message.qos and sum(target.session.durable for target in targets) > 1:
                self.persistence.share(message)
        result = reasons.NO_MATCHING_SUBSCRIBERS
        missed: list[Missed] | None = None  # those that have no room
        for index, target in enumerate(targets):
            group = "" if index < plain else by[index - plain]
            reason = self._deliver(target, message, receipt, group)
            if reasons.is_error(reason):
                missed = _add(missed, Missed(target.session, target, group))
            else:
                result = reasons.SUCCESS
        if message.from_tier and not any(target.session.kind == VEHICLE for target in targets):
            reason = self.inbox.offer(message, receipt)
            box = self.inbox.box(message.topic) if reasons.is_error(reason) else None
            if box is not None:
                missed = _add(missed, Missed(box, None, ""))
            elif result != reasons.SUCCESS:
                result = reason
        if missed is not None:
            result = self.refusals.settle(message, source, receipt, missed, result == reasons.SUCCESS)
        if message.body:
            self.persistence.unshare(message)
        return result

    def _fans_out(
        self, message: Message, source: Session | None, receipt: Receipt | None, route: Route, place: Place
    ) -> bool:
        """Whether a message reaches its receivers in later turns: it has many, or would overtake such a message. Not
        with ``hold``: ``has_room`` has looked at the queues as they are now."""
        if self.refusals.holds():
            return False
        fan_outs = self.fan_outs
        if len(route.targets) + len(route.groups) <= self.at_once and not fan_outs.overtakes(
            message, route.targets, route.groups
        ):
            return False
        if fan_outs.has_room(message):
            fan_outs.add(message, source, receipt, route, place)
        else:
            self.courier.dropped(message)
        return True

    def _fan(
        self, target: RouteTarget, message: Message, source: Session | None, receipt: Receipt | None, group: str
    ) -> int:
        """Queue a message for one of its many receivers, if it is to get it. Returns a reason code."""
        if not group:
            kept = self._receivers([target], message, source)
            if not kept:
                return reasons.SUCCESS
            target = kept[0]
        return self._deliver(target, message, receipt, group)

    def restore(self, fan_outs: dict[int, tuple[int, Place]], sessions: dict[int, Session]) -> None:
        """Go on with the messages that had not reached all receivers when the process ended."""
        for body in sorted(fan_outs):  # in the order in which they came
            item, place = fan_outs[body]
            self.fan_outs.restore(self.persistence.read(body), sessions.get(place.source), item, place)

    def _find(self, topic: str, place: Place) -> Route:
        """The present receivers of a message that is on its way to many."""
        route = self.subscriptions.route(topic)
        if place.groups is not None:
            chosen = [group for group in route.groups if group.full in place.groups and not group.of_cores]
            route = Route(route.targets if place.plain else [], chosen)
        return route

    def _receivers(self, targets: list[RouteTarget], message: Message, source: Session | None) -> list[RouteTarget]:
        """The targets of a route that get this message, after No Local [MQTT-3.8.3-3] and split horizon."""
        from_tier = message.from_tier
        for target in targets:
            if (from_tier and target.session.kind == TIER) or (target.no_local and target.session is source):
                break
        else:
            return targets
        kept: list[RouteTarget] = []
        for target in targets:
            if from_tier and target.session.kind == TIER:
                continue
            receiver = target.own if target.no_local and target.session is source else target
            if receiver is not None:
                kept.append(receiver)
        return kept

    def _deliver(self, target: RouteTarget, message: Message, receipt: Receipt | None, group: str) -> int:
        retain = message.retain and target.retain_as_published  # [MQTT-3.3.1-12] [MQTT-3.3.1-13]
        qos = message.qos if message.qos < target.qos else target.qos
        return self.courier.offer(target.session, message, qos, retain, target.identifiers, receipt, group)

    def listeners(self, message: Message) -> list[tuple[RouteTarget, str]]:
        """The clients that get a message of the server's own, each with the shared group that it gets it for, if any.
        """
        route = self.subscriptions.route(message.topic)
        found = [(target, "") for target in route.targets if target.session.kind != TIER]
        for group in route.groups:
            chosen = None if group.of_cores else group.choose()
            if chosen is not None:
                found.append((chosen, group.full))
        return found

    def announce(self, message: Message, listener: tuple[RouteTarget, str]) -> None:
        """Send a message of the server's own to one of ``listeners``."""
        target, group = listener
        if not target.session.ended:
            self._deliver(target, message, None, group)

    def will_message(self, will: Will) -> Message:
        properties = will.properties
        publish = Publish(will.topic, will.payload, will.qos, will.retain, False, 0, properties)
        return message_of(publish, self.clock())

    def withdraw(self, topic: str, sender: Sender) -> None:
        """Delete the retained message of a topic: its sender may not publish it now. One of a vehicle is deleted as by
        a publish without payload, so cores delete their copies. Those of a back end's message are at edges: they are
        deleted without a message to subscribers, for whom it might be a command."""
        if sender.key[0] == VEHICLE:
            self.route(message_of(Publish(topic, b"", 1, True, False, 0, None), self.clock()), None, None)
            return
        message = self.retained.get(topic)
        if message is not None:
            self.forwarder.withdraw(topic, message.received)
            self.retained.discard(topic)

    def publish_will(self, session: Session) -> None:
        """Publish the will of a session, if its client may still do that: it was allowed when the client connected."""
        will = session.will
        session.will = None
        session.will_due = 0.0
        if will is None:
            return
        permissions = self._permissions_of(session.key, session.roles, session.provider)
        if not permissions.may_publish(will.topic, will.qos, will.retain, True):
            self._counters.forbidden_wills += 1
            self._notices.warn(
                "forbidden will", "%s (client %s) is no longer allowed to publish its will to %s: it is dropped",
                session.key[1], session.key[2], shortened(will.topic),
            )  # fmt: skip
            return
        if self.silenced(session.key, session.origin):
            self._notices.warn(
                "banned will", "%s (client %s) is banned: its will to %s is dropped",
                session.key[1], session.key[2], shortened(will.topic),
            )  # fmt: skip
            return
        now = self.clock()
        if will.expires:
            will.expires += now - will.received  # its lifetime begins when it is published
        will.received = now
        self.route(will, session, None)
        if session.kind == BACKEND:
            self.forwarder.forward(will, None)


def _same(known: Message, message: Message) -> bool:
    """Whether two retained messages of one topic have the same content."""
    return known.payload == message.payload and known.properties == message.properties


def _add(missed: list[Missed] | None, one: Missed) -> list[Missed]:
    if missed is None:
        return [one]
    missed.append(one)
    return missed
