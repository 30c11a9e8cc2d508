"""The principals of vehicles, of back ends and of the mesh's own tier links.

It knows the template of the vehicles' topics, and what each kind of client may do. It must never know how a client
proved who it is. What always holds: a vehicle's own permission covers its literal subtree only, even if its name
contains wildcards.
"""

from __future__ import annotations

from typing import final

from mesh.broker.claim import Claim
from mesh.broker.principal import BACKEND, TIER, VEHICLE, Grant, Permissions, Principal, everything
from mesh.policy.template import Template


def vehicle_principal(template: Template, vehicle: str, grant: Grant) -> Principal:
    """A vehicle. It may publish and subscribe in its own subtree, and do what ``grant`` allows to all vehicles."""
    return Principal(vehicle, VEHICLE, Permissions(template.subtree(vehicle), grant), vehicle)


def tier_principal(core: str) -> Principal:
    """A core as a client of an edge, after it proved that it knows the mesh secret."""
    return Principal(core, TIER, everything())


@final
class Grants:
    """What each client may do today, by the key of its session: kind, name, client id. ``vehicles`` and ``backends``
    change in place."""

    def __init__(self, template: Template, vehicles: Grant, backends: Grant) -> None:
        self.vehicles = vehicles
        self.backends = backends
        self._template = template
        self._of_backends = Permissions("", backends)
        self._of_cores = everything()

    def vehicle(self, vehicle: str) -> Principal:
        """The principal of a vehicle."""
        return vehicle_principal(self._template, vehicle, self.vehicles)

    def of(self, key: tuple[int, str, str]) -> Permissions:
        """The permissions of the client with the key of a session."""
        kind, name, _ = key
        if kind == VEHICLE:
            return Permissions(self._template.subtree(name), self.vehicles)
        return self._of_backends if kind == BACKEND else self._of_cores

    def take(self, other: Grants) -> None:
        """Allow what ``other`` allows from now on."""
        self.vehicles.take(other.vehicles)
        self.backends.take(other.backends)


def backend_principal(claim: Claim, grant: Grant) -> Principal:
    """A back end that was admitted. It may do what ``grant`` allows to all back ends."""
    return Principal(claim.name, BACKEND, Permissions("", grant), claim=claim)
