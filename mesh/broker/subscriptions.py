"""The receivers of a topic: the filters of all sessions, shared groups, and a bounded cache of routes.

It knows sessions only as holders of interests. What always holds: a session is in a route once however many of its
filters match, with the highest QoS among them [MQTT-3.3.5-1] and every subscription identifier [MQTT-3.3.4-3]; any
change of a subscription clears the cache.
"""

from __future__ import annotations

from typing import Final, final

from mypy_extensions import mypyc_attr

from mesh.broker.gate import Gate
from mesh.broker.grant import matches_any
from mesh.broker.letter import PREFIX, TOPIC
from mesh.broker.principal import TIER
from mesh.broker.session import Connection, Interest, Session
from mesh.wire.topics import is_shared, split_shared
from mesh.wire.tree import FilterTree

_ROUTE: Final = 300  # bytes of a remembered route besides its topic and receivers
_RECEIVER: Final = 150
_LONG: Final = 256  # nodes and subscriptions of a match that takes long; those of usual topics are some ten
SORTED: Final = 64
_CHOICES: Final = 64  # members that are looked at for one that can be served now, before one that queues is taken


@final
class RouteTarget:
    """One session that receives a topic. ``no_local``: some of its matching filters have No Local. Then ``own`` is the
    target for its own publishes, by the filters without No Local; ``None`` if there are none."""

    __slots__ = ("_found", "identifiers", "no_local", "own", "place", "qos", "retain_as_published", "session")

    def __init__(self, interest: Interest) -> None:
        subscription = interest.subscription
        self.session = interest.session
        self.qos = subscription.qos
        self.no_local = subscription.no_local
        self.own: RouteTarget | None = None
        self.place = 0  # among the members of a shared group
        self.retain_as_published = subscription.retain_as_published
        self.identifiers: tuple[int, ...] = (interest.identifier,) if interest.identifier else ()
        self._found: list[int] | None = None  # all identifiers, until ``finish``

    def merge(self, interest: Interest) -> None:
        """Another filter of the same session matches too. Call ``finish`` after the last one."""
        subscription = interest.subscription
        if self.no_local or subscription.no_local:
            self._merge_own(interest)
        self.qos = max(self.qos, subscription.qos)
        self.retain_as_published = self.retain_as_published or subscription.retain_as_published
        if interest.identifier:
            if self._found is None:
                self._found = list(self.identifiers)
            self._found.append(interest.identifier)

    def finish(self) -> None:
        """All filters were merged: a thousand of one session may match."""
        if self._found is not None:
            self.identifiers = tuple(self._found)
            self._found = None
        if self.own is not None:
            self.own.finish()

    def _merge_own(self, interest: Interest) -> None:
        """The session gets its own publishes by the filters without No Local only: with the highest QoS among them, and
        with their identifiers [MQTT-3.8.3-3]."""
        if not interest.subscription.no_local:
            if self.own is None:
                self.own = RouteTarget(interest)
            else:
                self.own.merge(interest)
        elif not self.no_local:  # the first filter with No Local: all that were merged before lack it
            own = self.own = RouteTarget(interest)
            own.no_local = False
            own.qos = self.qos
            own.retain_as_published = self.retain_as_published
            own.identifiers = self.identifiers
            own._found = None if self._found is None else self._found[:]
            self.no_local = True


@final
class SharedGroup:
    """The members of one ``full`` = ``$share/{name}/{filter}``; each message goes to one of them [MQTT-4.8.2-4].
    ``of_cores``: its members are cores, whose back ends form the group; clients of this node are never in it."""

    __slots__ = ("_by_session", "filter", "full", "members", "of_cores", "turn")

    def __init__(self, filter: str, full: str, of_cores: bool) -> None:
        self.filter = filter
        self.full = full
        self.of_cores = of_cores
        self.members: list[RouteTarget] = []
        self.turn = 0
        self._by_session: dict[Session, RouteTarget] = {}

    def add(self, interest: Interest) -> None:
        """Add a member."""
        target = self._by_session[interest.session] = RouteTarget(interest)
        target.place = len(self.members)
        self.members.append(target)

    def remove(self, session: Session) -> None:
        """Remove a member; the last one takes its place."""
        target = self._by_session.pop(session)
        last = self.members.pop()
        if last is not target:
            self.members[target.place] = last
            last.place = target.place

    def choose(self, without: Session | None = None) -> RouteTarget | None:
        """The next member in turn that can be served now, or else one that queues; never ``without``."""
        members = self.members
        count = len(members)
        fallback: RouteTarget | None = None
        for step in range(count):
            if step >= _CHOICES and fallback is not None:
                break
            target = members[(self.turn + step) % count]
            session = target.session
            if session is without:
                continue
            connection = session.connection
            if connection is not None:
                if self._ready(session, connection):
                    self.turn = (self.turn + step + 1) % count
                    return target
                if fallback is None or fallback.session.connection is None or fallback.session.stalled:
                    fallback = target
            elif fallback is None and session.durable and not session.ended:
                fallback = target
        self.turn = (self.turn + 1) % count if count else 0
        return fallback

    def _ready(self, session: Session, connection: Connection) -> bool:
        """Whether a message can be sent at once."""
        outbound = session.outbound
        return (
            connection.writable
            and not session.stalled
            and not outbound.waiting
            and len(outbound.in_flight) < outbound.window
        )


@final
class Route:
    """The receivers of one topic: ``targets`` in the order of their sessions, and ``groups`` in that of their names, if
    there are more than ``SORTED``; or the only receiver."""

    __slots__ = ("_members", "groups", "targets")

    def __init__(self, targets: list[RouteTarget], groups: list[SharedGroup], only: Session | None = None) -> None:
        self.targets = targets
        self.groups = groups
        self._members: set[object] | None = None if only is None else {only}

    def has(self, receiver: object) -> bool:
        """Whether a session or a group is a receiver."""
        members = self._members
        if members is None:
            members = self._members = {target.session for target in self.targets}
            members.update(self.groups)
        return receiver in members


@mypyc_attr(allow_interpreted_subclasses=True)
class InterestListener:
    """Is called when a filter gets its first subscriber and loses its last. This one does nothing; the core's tells
    the edges.
    """

    def gate(self, filter: str) -> Gate | None:
        """The gate that waits for nodes to confirm ``filter``, if any; ``Broker.opened`` is called when it opens."""
        return None

    def wanted(self, filter: str) -> None:
        """``filter`` (with its ``$share/…`` prefix if it has one) has its first subscriber."""

    def unwanted(self, filter: str) -> None:
        """``filter`` has lost its last subscriber."""


_NO_LISTENER: Final = InterestListener()


@final
class Subscriptions:
    """``routes`` and ``route_bytes`` bound the cached routes; ``refused``: filters of topics that only cores may
    receive. ``spent``: steps of the work (see ``work``) that long matches have taken, until the broker counts them."""

    __slots__ = (
        "_counts", "_groups", "_letters", "_limit", "_most_bytes", "_refused", "_route_bytes", "_routes", "_total",
        "_tree", "letters_version",
        "listener", "spent",
    )  # fmt: skip

    def __init__(self, routes: int, refused: tuple[str, ...] = (), route_bytes: int = 64 << 20) -> None:
        self._tree: FilterTree[Interest | SharedGroup] = FilterTree()
        self._groups: dict[tuple[bool, str], SharedGroup] = {}
        self._counts: dict[str, int] = {}
        self._routes: dict[str, Route] = {}
        self._route_bytes = 0
        self._limit = routes
        self._most_bytes = route_bytes
        self._refused = refused
        self._total = 0
        self._letters: dict[Interest, None] = {}  # subscriptions to dead letters, in order
        self.letters_version = 0
        self.listener = _NO_LISTENER
        self.spent = 0

    def __len__(self) -> int:
        return self._total

    def filters(self) -> list[str]:
        """Every filter that has a subscriber."""
        return list(self._counts)

    def fits(self, filter: str, most: int) -> bool:
        """Whether every topic that ``filter`` matches leads through at most ``most`` nodes of the tree of filters, if a
        subscription to it is added."""
        return self._tree.fits(split_shared(filter)[1], most)

    def add(self, interest: Interest) -> None:
        """Add a subscription. The session must not have another one to the same filter."""
        full = interest.subscription.filter
        name, filter = split_shared(full)
        if name:
            key = (interest.session.kind == TIER, full)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = SharedGroup(filter, full, key[0])
                self._tree.add(filter, group, group)
            group.add(interest)
            interest.session.shared += 1
        else:
            self._tree.add(filter, interest.session, interest)
        if _is_of_letters(filter):
            self._letters[interest] = None
            self.letters_version += 1
        self._forget_routes()
        self._total += 1
        count = self._counts.get(full, 0)
        self._counts[full] = count + 1
        if count == 0:
            self.listener.wanted(full)

    def replace(self, old: Interest, new: Interest) -> None:
        """The same session subscribes again to the same filter: the listener is not called."""
        listener = self.listener
        self.listener = _NO_LISTENER
        self.remove(old)
        self.add(new)
        self.listener = listener

    def remove(self, interest: Interest) -> None:
        """Undo ``add``."""
        session, full = interest.session, interest.subscription.filter
        if is_shared(full):
            group = self._groups[(session.kind == TIER, full)]
            session.shared -= 1
            group.remove(session)
            if not group.members:
                self._tree.remove(group.filter, group)
                del self._groups[(group.of_cores, full)]
        else:
            self._tree.remove(full, session)
        if interest in self._letters:
            del self._letters[interest]
            self.letters_version += 1
        self._forget_routes()
        self._total -= 1
        count = self._counts[full] - 1
        if count:
            self._counts[full] = count
        else:
            del self._counts[full]
            self.listener.unwanted(full)

    def letter_interests(self) -> list[Interest]:
        """The subscriptions to dead letters. ``letters_version`` grows with each change of them."""
        return list(self._letters)

    def leave_out(self) -> None:
        """A session receives less from now on: it has ended, although its subscriptions are still to be removed, or the
        filters that it is refused have changed."""
        self._forget_routes()

    def has_groups(self) -> bool:
        """Whether there is a shared group."""
        return bool(self._groups)

    def groups(self) -> list[SharedGroup]:
        """All shared groups."""
        return list(self._groups.values())

    def group(self, full: str, of_cores: bool = False) -> SharedGroup | None:
        """The shared group of a ``$share/{name}/{filter}``; ``None`` if it has no member."""
        return self._groups.get((of_cores, full))

    def groups_of(self, session: Session) -> list[SharedGroup]:
        """The shared groups that a session is a member of."""
        of_cores = session.kind == TIER
        found = [self._groups.get((of_cores, filter)) for filter in session.interests]
        return [group for group in found if group is not None]

    def route(self, topic: str) -> Route:
        """The receivers of ``topic``."""
        route = self._routes.get(topic)
        if route is None:
            route = self._compute(topic)
            # A topic may have 64 KiB, and a fleet-wide one a receiver for each vehicle.
            size = _ROUTE + len(topic) + _RECEIVER * (len(route.targets) + len(route.groups))
            if len(self._routes) >= self._limit or self._route_bytes + size > self._most_bytes:
                self._forget_routes()  # cheaper than least recently used, and as good for topics that recur
            self._routes[topic] = route
            self._route_bytes += size
        return route

    def limit(self, routes: int, refused: tuple[str, ...]) -> None:
        """Other bounds of the cache, and other refused filters, from now on."""
        stale = routes < self._limit or refused != self._refused
        self._limit = routes
        self._refused = refused
        if stale:
            self._forget_routes()

    def _forget_routes(self) -> None:
        self._routes.clear()
        self._route_bytes = 0

    def follows(self, topic: str) -> bool:
        """Whether a subscription that is not shared matches ``topic``."""
        return any(not isinstance(value, SharedGroup) for value in self._tree.match(topic))

    def is_long(self, topic: str) -> bool:
        """Whether a match of ``topic`` may take long. Its route may be remembered."""
        return self._tree.most_nodes(topic) > _LONG

    def withholds(self, session: Session, topic: str) -> bool:
        """Whether a session must not receive ``topic``, also if its filters match."""
        if session.kind == TIER:
            return False
        if session.refused and matches_any(session.refused, topic):
            return True
        return self._is_refused(topic)

    def _is_refused(self, topic: str) -> bool:
        return bool(self._refused) and matches_any(self._refused, topic)

    def _compute(self, topic: str) -> Route:
        targets: dict[Session, RouteTarget] = {}
        merged: dict[RouteTarget, None] = {}
        groups: list[SharedGroup] = []
        refused = self._is_refused(topic)
        found = self._tree.match(topic)
        if self._tree.visited + len(found) > _LONG:
            self.spent += self._tree.visited + len(found)
        for value in found:
            if isinstance(value, SharedGroup):
                if value.of_cores or not refused:
                    groups.append(value)
                continue
            session = value.session
            if session.ended or (refused and session.kind != TIER):
                continue
            if session.refused and matches_any(session.refused, topic):
                continue
            target = targets.get(value.session)
            if target is None:
                targets[value.session] = RouteTarget(value)
            else:
                target.merge(value)
                merged[target] = None
        for target in merged:
            target.finish()
        receivers = list(targets.values())
        if len(receivers) > SORTED:
            receivers.sort(key=id_of)
        if len(groups) > SORTED:
            groups.sort(key=name_of)
        return Route(receivers, groups)


def id_of(target: RouteTarget) -> int:
    """The order of sessions: that of their beginning, and the same after a restart."""
    return target.session.id


def name_of(group: SharedGroup) -> str:
    """The order of shared groups."""
    return group.full


def _is_of_letters(filter: str) -> bool:
    """Whether a filter, without ``$share``, matches dead letters."""
    return filter == TOPIC or filter.startswith(PREFIX)
