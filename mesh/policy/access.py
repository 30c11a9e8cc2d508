"""The principals of vehicles, of back ends and of the mesh's own tier links.

It knows the template of the vehicles' topics, and what each kind of client and each role may do. It must never know how
a client proved who it is. What always holds: a vehicle's own permission covers its literal subtree only, even if its
name contains wildcards.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import final

from mesh.broker.claim import Claim
from mesh.broker.grant import Grant
from mesh.broker.notices import Notices, shortened
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Permissions, Principal, everything
from mesh.broker.roles import Roles
from mesh.policy.template import Template

log = logging.getLogger(__name__)


Standing = Callable[[str, str, tuple[str, ...]], tuple[str, ...] | None]


def _unchanged(_provider: str, _name: str, roles: tuple[str, ...]) -> tuple[str, ...] | None:
    return roles


def tier_principal(core: str) -> Principal:
    """A core as a client of an edge, after it proved that it knows the mesh secret."""
    return Principal(core, TIER, everything())


@final
class Grants:
    """What each client may do today. ``vehicles``, ``backends`` and ``roles`` change in place. ``standing`` gives the
    roles that a client has today, by the name of its provider, its own, and the roles that it had; ``None`` if its
    provider has it no more."""

    def __init__(
        self, template: Template, vehicles: Grant, backends: Grant, roles: Mapping[str, Grant] | None = None
    ) -> None:
        self.vehicles = vehicles
        self.backends = backends
        self.roles = Roles(roles)
        self.standing: Standing = _unchanged
        self._template = template
        self._notices = Notices(log.warning, time.monotonic)

    def vehicle(self, vehicle: str, roles: tuple[str, ...] = ()) -> Principal:
        """A vehicle with these roles. It may publish and subscribe in its own subtree, and do what all vehicles and its
        roles may."""
        self._look(f"vehicle {vehicle}", roles)
        return Principal(vehicle, VEHICLE, self.of((VEHICLE, vehicle, ""), roles), vehicle)

    def backend(self, claim: Claim, roles: tuple[str, ...] = ()) -> Principal:
        """A back end that was admitted, with these roles. It may do what all back ends and its roles may."""
        self._look(f"back end {claim.name}", roles)
        return Principal(claim.name, BACKEND, self.of((BACKEND, claim.name, ""), roles), claim=claim)

    def of(self, key: tuple[int, str, str], roles: tuple[str, ...], provider: str = "") -> Permissions:
        """The permissions of the client with the key of a session (kind, name, client id) and with these roles. With
        ``provider``, the one that admitted it, the roles are those that it had then."""
        kind, name, client_id = key
        if provider and kind != TIER:
            present = self.standing(provider, name, roles)
            if present is None:
                return Permissions()
            roles = present
        if kind == VEHICLE:
            return Permissions(self._template.subtree(name), self.vehicles, name, client_id, roles, self.roles)
        return Permissions("", self.backends, "", client_id, roles, self.roles) if kind == BACKEND else everything()

    def take(self, other: Grants) -> None:
        """Allow what ``other`` allows from now on."""
        self.vehicles.take(other.vehicles)
        self.backends.take(other.backends)
        self.roles.take(other.roles)

    def _look(self, who: str, roles: tuple[str, ...]) -> None:
        unknown = self.roles.unknown(roles) if roles else []
        if unknown:
            named = ", ".join(shortened(name) for name in unknown[:5])
            self._notices.warn("unknown role", "%s has roles that access.roles does not have: %s", who, named)
