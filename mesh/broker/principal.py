"""Who a connection speaks for, and what that one may do.

Made by the policy room when a client is let in; the engine only asks. What always holds: a vehicle's own subtree is a
literal prefix, so no wildcard in an identity, a topic or a filter can widen it (CVE-2017-7650).
"""

from __future__ import annotations

from typing import Final, final

from mesh.wire.topics import covers, split_shared

VEHICLE: Final = 0
BACKEND: Final = 1
TIER: Final = 2  # a core that is a client of this edge


@final
class Permissions:
    """Either everything but ``$`` topics (``prefix`` empty), or what lies below a literal ``prefix`` that ends in a
    slash; and to read, what the filters in ``fleet`` match.
    """

    __slots__ = ("fleet", "prefix")

    def __init__(self, prefix: str = "", fleet: tuple[str, ...] = ()) -> None:
        self.prefix = prefix
        self.fleet = fleet

    def may_publish(self, topic: str) -> bool:
        """Topics that begin with ``$`` belong to the server [MQTT-4.7.2-1]."""
        return topic.startswith(self.prefix) and not topic.startswith("$")

    def may_subscribe(self, filter: str) -> bool:
        """The whole filter, or that within ``$share``, must lie below the prefix, or the whole filter within one of the
        fleet's: a group would take from one vehicle what another one reads."""
        if not self.prefix:
            return True
        if split_shared(filter)[1].startswith(self.prefix):
            return True
        return any(covers(allowed, filter) for allowed in self.fleet)


@final
class Principal:
    """``name`` is the authenticated identity; a session belongs to it and no other identity can take it over."""

    __slots__ = ("kind", "name", "permissions", "vehicle")

    def __init__(self, name: str, kind: int, permissions: Permissions, vehicle: str = "") -> None:
        self.name = name
        self.kind = kind
        self.permissions = permissions
        self.vehicle = vehicle
