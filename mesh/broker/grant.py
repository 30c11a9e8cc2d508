"""What the settings allow: grants of classes of clients and of roles, and how they apply to one client.

It knows topic filters: never connections or sessions. Places in a filter, whole levels such as ``{client_id}``, stand
for what is known of a client. What always holds:

* a value in a place never widens what is allowed (CVE-2017-7650): where it is no plain level, a filter that allows is
  left out, and one that refuses refuses all from that level on;
* a grant that has no places and no limits costs nothing more than the match of its filters.
"""

from __future__ import annotations

from typing import Final, final

from mesh.wire.reasons import NOT_AUTHORIZED
from mesh.wire.topics import covers, matches

MESH_TOPICS: Final = "$mesh/"  # signals between nodes; no client may publish or subscribe to them

ALL_TOPICS: Final = ("#",)
ALL_FILTERS: Final = ("#", "$SYS/#", "$dead-letters/#")  # "#" matches no topic that begins with $ [MQTT-4.7.2-1]

VEHICLE_PLACE: Final = "{vehicle}"
CLIENT_PLACE: Final = "{client_id}"
ROLE_PLACE: Final = "{role}"
PLACES: Final = (VEHICLE_PLACE, CLIENT_PLACE, ROLE_PLACE)

MOST_QOS: Final = 2


@final
class Grant:
    """What all clients of one class, or all with one role, may do: topic filters to publish to and to subscribe to, and
    filters that are refused in any case; ``fleet``: filters that they may also subscribe to, but not share; ``reason``
    is the MQTT 5.0 reason code of a refusal; ``qos``: the highest of what they publish and receive; ``retain`` and
    ``will``: whether they may publish retained messages and have a will. ``parts``: the grants that this one joins, the
    first of which also applies to a vehicle's own subtree. ``version`` grows with each change.

    ``all``: they may publish to all topics; ``limited``: ``qos``, ``retain`` or ``will`` withholds something;
    ``personal``: its filters have places. It changes in place, so a change is in force at all open connections at
    once."""

    __slots__ = (
        "all", "fleet", "limited", "parts", "personal", "publish", "qos", "reason", "refused", "retain", "subscribe",
        "version", "will",
    )  # fmt: skip

    def __init__(
        self,
        publish: tuple[str, ...],
        subscribe: tuple[str, ...],
        refused: tuple[str, ...] = (),
        reason: int = NOT_AUTHORIZED,
        fleet: tuple[str, ...] = (),
        qos: int = MOST_QOS,
        retain: bool = True,
        will: bool = True,
        parts: tuple[Grant, ...] = (),
    ) -> None:
        self.version = 0
        self.publish = publish
        self.subscribe = subscribe
        self.refused = refused
        self.reason = reason
        self.fleet = fleet
        self.qos = qos
        self.retain = retain
        self.will = will
        self.parts = parts
        self.all = False
        self.limited = False
        self.personal = False
        self._look()

    def _look(self) -> None:
        self.all = self.publish == ALL_TOPICS and not self.refused
        self.limited = any(_limits(part) for part in self.parts) if self.parts else _limits(self)
        self.personal = any(_places(filter) for filter in (*self.publish, *self.subscribe, *self.refused))

    def take(self, other: Grant) -> None:
        """Be as ``other`` from now on."""
        self.version += 1
        self.publish = other.publish
        self.subscribe = other.subscribe
        self.refused = other.refused
        self.reason = other.reason
        self.fleet = other.fleet
        self.qos = other.qos
        self.retain = other.retain
        self.will = other.will
        self.parts = other.parts
        self._look()

    def within(self, topic: str, own: bool, qos: int, retain: bool, will: bool) -> bool:
        """Whether the limits allow a publish to a topic that the filters allow. ``own``: it is in the client's own
        subtree."""
        most, retains, wills = -1, False, False
        for part in self.parts or (self,):
            if own or matches_any(part.publish, topic):
                most = max(most, part.qos)
                retains = retains or part.retain
                wills = wills or part.will
            own = False  # the first part only
        return qos <= most and (retains or not retain) and (wills or not will)

    def most_of(self, filter: str, inner: str, own: bool) -> int:
        """The highest QoS of a subscription to ``filter``, which is ``inner`` without its group; -1: none is allowed.
        """
        most = -1
        for part in self.parts or (self,):
            if part.qos > most and (
                own
                or any(covers(allowed, inner) for allowed in part.subscribe)
                or any(covers(allowed, filter) for allowed in part.fleet)
            ):
                most = part.qos
            own = False
        return most

    def in_force(self) -> dict[str, object]:
        """What it allows, by name."""
        return {
            "publish": self.publish, "subscribe": self.subscribe, "refuse": self.refused, "refusal": self.reason,
            "fleet": self.fleet, "qos": self.qos, "retain": self.retain, "will": self.will,
        }  # fmt: skip


def joined(own: Grant, roles: list[tuple[str, Grant]]) -> Grant:
    """The grant of a class, and those of roles with their names, which are empty for roles that are written out."""
    names = [name for name, _ in roles if name]
    parts = [own if not own.personal else _of_roles(own, names)]
    parts += [grant if not grant.personal else _of_roles(grant, [name] if name else []) for name, grant in roles]
    return _join(own.reason, parts)


def filled(grant: Grant, vehicle: str, client_id: str) -> Grant:
    """A grant for one client. ``vehicle`` is empty for other clients."""
    parts = grant.parts or (_of_roles(grant, []),)
    return _join(grant.reason, [_filled(part, vehicle, client_id) for part in parts])


def _join(reason: int, parts: list[Grant]) -> Grant:
    publish, subscribe, refused, fleet = list[str](), list[str](), list[str](), list[str]()
    for part in parts:
        publish += part.publish
        subscribe += part.subscribe
        refused += part.refused
        fleet += part.fleet
    return Grant(
        _once(publish), _once(subscribe), _once(refused), reason, _once(fleet), parts=tuple(parts)
    )


def _of_roles(grant: Grant, names: list[str]) -> Grant:
    """A grant whose filters with ``{role}`` are there once for each role."""
    return _with(grant, ROLE_PLACE, names)


def _filled(grant: Grant, vehicle: str, client_id: str) -> Grant:
    if not grant.personal:
        return grant
    return _with(_with(grant, VEHICLE_PLACE, [vehicle]), CLIENT_PLACE, [client_id])


def _with(grant: Grant, place: str, values: list[str]) -> Grant:
    return Grant(
        _each(grant.publish, place, values, False), _each(grant.subscribe, place, values, False),
        _each(grant.refused, place, values, True), grant.reason, grant.fleet, grant.qos, grant.retain, grant.will,
    )  # fmt: skip


def _each(filters: tuple[str, ...], place: str, values: list[str], refusing: bool) -> tuple[str, ...]:
    """The filters with each value in the place. One that is no level is left out, or refuses all that it may mean."""
    found: list[str] = []
    for filter in filters:
        levels = filter.split("/")
        if place not in levels:
            found.append(filter)
            continue
        for value in values:
            if not _is_level(value):
                if refusing:
                    found.append("/".join([*levels[: levels.index(place)], "#"]))
            elif refusing or levels[0] != place or not value.startswith("$"):
                found.append("/".join([value if level == place else level for level in levels]))
    return _once(found)


def _is_level(value: str) -> bool:
    """Whether a value is one level of a topic name."""
    return bool(value) and "/" not in value and "+" not in value and "#" not in value and "\0" not in value


def _once(filters: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filters))


def _limits(grant: Grant) -> bool:
    return grant.qos < MOST_QOS or not grant.retain or not grant.will


def _places(filter: str) -> bool:
    return "{" in filter and not set(filter.split("/")).isdisjoint(PLACES)


def plain(filters: tuple[str, ...]) -> tuple[str, ...]:
    """The filters that have no places."""
    return tuple([filter for filter in filters if not _places(filter)])


def matches_any(filters: tuple[str, ...], topic: str) -> bool:
    """Whether one of the filters matches a topic."""
    return any(matches(filter, topic) for filter in filters)
