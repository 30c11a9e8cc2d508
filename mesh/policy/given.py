"""The roles that the settings give to clients, besides those that a provider names.

It knows names only. What always holds: the roles of a claim come first, and each is there once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from mesh.broker.claim import Claim

Names = tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class GivenToday:
    """The roles that clients have today which another node has admitted, called with the name of the provider, that of
    the client, and the roles that it had. ``providers``: those whose claims have no roles of their own."""

    given: GivenRoles
    providers: frozenset[str]

    def __call__(self, provider: str, name: str, roles: Names) -> Names:
        return self.given.of(Claim(name, provider)) if provider in self.providers else roles


@final
@dataclass(frozen=True, slots=True)
class GivenRoles:
    """``providers``: the roles of all whom a provider admits, by its name. ``clients``: those of single ones, by the
    names of provider and client."""

    providers: Mapping[str, Names] = field(default_factory=dict)
    clients: Mapping[tuple[str, str], Names] = field(default_factory=dict)

    def in_force(self) -> dict[str, object]:
        """The roles, by name."""
        clients = {f"{provider}.{name}": roles for (provider, name), roles in sorted(self.clients.items())}
        return {"providers": dict(self.providers), "clients": clients}

    def of(self, claim: Claim) -> Names:
        """All roles of a client."""
        given = (
            *self.providers.get(claim.provider, ()),
            *self.clients.get((claim.provider, claim.name), ()),
        )
        return tuple(dict.fromkeys((*claim.roles, *given))) if given else claim.roles
