"""The identity of a connection, and its permissions.

The policy room makes them when it admits a client; the broker only reads them. What always holds: a vehicle's own
subtree is a literal prefix, so no wildcard in an identity, a topic or a filter can widen it (CVE-2017-7650).
"""

from __future__ import annotations

from typing import Final, final

from mesh.broker.claim import Claim
from mesh.broker.grant import ALL_FILTERS, ALL_TOPICS, MESH_TOPICS, Grant, filled, matches_any
from mesh.broker.roles import Roles
from mesh.wire.topics import covers, overlap, split_shared

VEHICLE: Final = 0
BACKEND: Final = 1
TIER: Final = 2  # a core that is a client of this edge
_KINDS: Final = ("vehicle", "back end", "core")

GIVEN: Final = MESH_TOPICS + "given"  # a core says at it that the edge has all that it keeps for every edge
_DEAD_LETTERS: Final = "$dead-letters"
_SERVERS: Final = ("$SYS", _DEAD_LETTERS, MESH_TOPICS)  # topics that only the server publishes to

_NOTHING: Final = Grant((), ())
_EVERYTHING: Final = Grant(ALL_TOPICS, ALL_FILTERS)
_NO_ROLES: Final = Roles()


@final
class Permissions:
    """Of one client. Allows topics below a literal ``prefix`` that ends in a slash (empty: no own subtree), and what
    ``grant``, that of its class, and the grants of its ``roles`` allow; refuses what one of them refuses. ``vehicle``
    and ``client_id`` take the places in their filters."""

    __slots__ = ("_mine", "_table", "_versions", "client_id", "grant", "prefix", "roles", "vehicle")

    def __init__(
        self, prefix: str = "", grant: Grant = _NOTHING, vehicle: str = "", client_id: str = "",
        roles: tuple[str, ...] = (), table: Roles = _NO_ROLES,
    ) -> None:
        self.prefix = prefix
        self.grant = grant
        self.vehicle = vehicle
        self.client_id = client_id
        self.roles = roles
        self._table = table
        self._mine: Grant | None = None  # what its roles and its own values make of ``grant``
        self._versions = (0, 0)

    @property
    def reason(self) -> int:
        """The reason code of a refusal."""
        return self.grant.reason

    def name(self, client_id: str) -> None:
        """The client has this client id, which the server may have assigned."""
        if client_id != self.client_id:
            self.client_id = client_id
            self._mine = None

    def entitle(self, roles: tuple[str, ...]) -> None:
        """The client has these roles from now on."""
        self.roles = roles
        self._mine = None

    def _rights(self) -> Grant:
        """What the client may do at present, besides its own subtree."""
        grant = self.grant
        if not self.roles and not grant.personal:
            return grant
        mine = self._mine
        versions = (grant.version, self._table.version)
        if mine is None or self._versions != versions:
            mine = self._table.grant(grant, self.roles)
            if mine.personal:
                mine = filled(mine, self.vehicle, self.client_id)
            self._mine = mine
            self._versions = versions
        return mine

    def may_publish(self, topic: str, qos: int = 0, retain: bool = False, will: bool = False) -> bool:
        """Clients may not publish to topics that begin with ``$`` [MQTT-4.7.2-1], unless a filter names them; some of
        them belong to the server or to the mesh. ``will``: it is the will of the client."""
        grant = self._rights()
        own = False
        if topic.startswith("$"):
            if topic.startswith(_SERVERS) or not matches_any(grant.publish, topic):
                return False
            if matches_any(grant.refused, topic):
                return False
        elif not grant.all:
            if grant.refused and matches_any(grant.refused, topic):
                return False
            own = bool(self.prefix) and topic.startswith(self.prefix)
            if not own and not matches_any(grant.publish, topic):
                return False
        if not grant.limited:
            return True
        return grant.within(topic, own or (bool(self.prefix) and topic.startswith(self.prefix)), qos, retain, will)

    def most_qos(self, filter: str) -> int:
        """The highest QoS of a subscription to a filter; -1 if it is not allowed.

        The filter, or the filter within ``$share``, must lie below the prefix or within an allowed filter. A filter
        without ``$share`` may also lie within a fleet filter; a shared group there would withhold messages from other
        vehicles. Only back ends may read dead letters, which are messages of other vehicles, too.

        A filter that is wider than a refused one is granted; ``Subscriptions`` withholds the refused topics, but not
        from one member of a shared group.
        """
        group, inner = split_shared(filter)
        grant = self._rights()
        if inner.startswith(MESH_TOPICS) or any(covers(refused, inner) for refused in grant.refused):
            return -1
        if self.prefix and inner.startswith(_DEAD_LETTERS):
            return -1
        if group and any(overlap(refused, inner) for refused in self.withheld()):
            return -1
        return grant.most_of(filter, inner, bool(self.prefix) and inner.startswith(self.prefix))

    def withheld(self) -> tuple[str, ...]:
        """The refused filters that are not those of all clients of its class."""
        grant = self._rights()
        if grant is self.grant or not grant.refused:
            return ()
        common = self.grant.refused
        return tuple([filter for filter in grant.refused if filter not in common])


def everything() -> Permissions:
    """Permissions for all topics that do not belong to the server."""
    return Permissions("", _EVERYTHING)


@final
class Principal:
    """``name`` is the authenticated identity. A session belongs to it, and no other identity can take it over.
    ``claim`` is what a provider vouched for, at a node that asks providers: a back end's, at its core. ``provider`` is
    the name of the one that admitted the client, also if another node asked it; empty for a core."""

    __slots__ = ("claim", "kind", "name", "permissions", "provider", "vehicle")

    def __init__(
        self, name: str, kind: int, permissions: Permissions, vehicle: str = "", claim: Claim | None = None
    ) -> None:
        self.claim = claim
        self.provider = "" if claim is None else claim.provider
        self.name = name
        self.kind = kind
        self.permissions = permissions
        self.vehicle = vehicle

    def __str__(self) -> str:
        """The principal for people: ``vehicle CAR-7``, ``back end fleet`` or ``core core-2``."""
        return f"{_KINDS[self.kind]} {self.name}"
