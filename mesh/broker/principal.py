"""The identity of a connection, and its permissions.

The policy room makes them when it admits a client; the broker only reads them. What always holds: a vehicle's own
subtree is a literal prefix, so no wildcard in an identity, a topic or a filter can widen it (CVE-2017-7650).
"""

from __future__ import annotations

from typing import Final, final

from mesh.broker.claim import Claim
from mesh.wire.reasons import NOT_AUTHORIZED
from mesh.wire.topics import covers, matches, split_shared

VEHICLE: Final = 0
BACKEND: Final = 1
TIER: Final = 2  # a core that is a client of this edge
_KINDS: Final = ("vehicle", "back end", "core")


MESH_TOPICS: Final = "$mesh/"  # signals between nodes; no client may publish or subscribe to them

ALL_TOPICS: Final = ("#",)
ALL_FILTERS: Final = ("#", "$SYS/#", "$dead-letters/#")  # "#" matches no topic that begins with $ [MQTT-4.7.2-1]
GIVEN: Final = MESH_TOPICS + "given"  # a core says at it that the edge has all that it keeps for every edge
_SERVERS: Final = ("$SYS", "$dead-letters", MESH_TOPICS)  # topics that only the server publishes to


@final
class Grant:
    """What all clients of one kind may do: topic filters to publish to and to subscribe to, and filters that are
    refused in any case; ``fleet``: filters that they may also subscribe to, but not share; ``reason`` is the MQTT 5.0
    reason code of a refusal; ``all``: whether they may publish to all topics. It changes in place, so a change is in
    force at all open connections at once."""

    __slots__ = ("all", "fleet", "publish", "reason", "refused", "subscribe")

    def __init__(
        self,
        publish: tuple[str, ...],
        subscribe: tuple[str, ...],
        refused: tuple[str, ...] = (),
        reason: int = NOT_AUTHORIZED,
        fleet: tuple[str, ...] = (),
    ) -> None:
        self.publish = publish
        self.subscribe = subscribe
        self.refused = refused
        self.reason = reason
        self.fleet = fleet
        self.all = publish == ALL_TOPICS and not refused

    def take(self, other: Grant) -> None:
        """Be as ``other`` from now on."""
        self.publish = other.publish
        self.subscribe = other.subscribe
        self.refused = other.refused
        self.reason = other.reason
        self.fleet = other.fleet
        self.all = other.all

    def in_force(self) -> dict[str, object]:
        """What it allows, by name."""
        return {
            "publish": self.publish, "subscribe": self.subscribe, "refuse": self.refused, "refusal": self.reason,
            "fleet": self.fleet,
        }  # fmt: skip


_NOTHING: Final = Grant((), ())
_EVERYTHING: Final = Grant(ALL_TOPICS, ALL_FILTERS)


@final
class Permissions:
    """Allows topics below a literal ``prefix`` that ends in a slash (empty: no own subtree), and what ``grant`` allows;
    refuses what ``grant`` refuses."""

    __slots__ = ("grant", "prefix")

    def __init__(self, prefix: str = "", grant: Grant = _NOTHING) -> None:
        self.prefix = prefix
        self.grant = grant

    @property
    def reason(self) -> int:
        """The reason code of a refusal."""
        return self.grant.reason

    def may_publish(self, topic: str) -> bool:
        """Clients may not publish to topics that begin with ``$`` [MQTT-4.7.2-1], unless a filter names them; some of
        them belong to the server or to the mesh."""
        grant = self.grant
        if topic.startswith("$"):
            if topic.startswith(_SERVERS) or not matches_any(grant.publish, topic):
                return False
            return not matches_any(grant.refused, topic)
        if grant.all:
            return True
        if grant.refused and matches_any(grant.refused, topic):
            return False
        if self.prefix and topic.startswith(self.prefix):
            return True
        return matches_any(grant.publish, topic)

    def may_subscribe(self, filter: str) -> bool:
        """The filter, or the filter within ``$share``, must lie below the prefix or within an allowed filter. A filter
        without ``$share`` may also lie within a fleet filter; a shared group there would withhold messages from other
        vehicles.

        A filter that is wider than a refused one is granted; ``Subscriptions`` withholds the refused topics.
        """
        inner, grant = split_shared(filter)[1], self.grant
        if inner.startswith(MESH_TOPICS) or any(covers(refused, inner) for refused in grant.refused):
            return False
        if self.prefix and inner.startswith(self.prefix):
            return True
        if any(covers(allowed, inner) for allowed in grant.subscribe):
            return True
        return any(covers(allowed, filter) for allowed in grant.fleet)


def everything() -> Permissions:
    """Permissions for all topics that do not belong to the server."""
    return Permissions("", _EVERYTHING)


def matches_any(filters: tuple[str, ...], topic: str) -> bool:
    """Whether one of the filters matches a topic."""
    return any(matches(filter, topic) for filter in filters)


@final
class Principal:
    """``name`` is the authenticated identity. A session belongs to it, and no other identity can take it over.
    ``claim`` is what a provider vouched for, at a node that asks providers: a back end's, at its core."""

    __slots__ = ("claim", "kind", "name", "permissions", "vehicle")

    def __init__(
        self, name: str, kind: int, permissions: Permissions, vehicle: str = "", claim: Claim | None = None
    ) -> None:
        self.claim = claim
        self.name = name
        self.kind = kind
        self.permissions = permissions
        self.vehicle = vehicle

    def __str__(self) -> str:
        """The principal for people: ``vehicle CAR-7``, ``back end fleet`` or ``core core-2``."""
        return f"{_KINDS[self.kind]} {self.name}"
