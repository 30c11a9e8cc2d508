"""The roles of the settings, and what a client with several of them may do.

It knows names and grants: never who has which role. What always holds: a name that is no role gives nothing; a role may
be written out in place of a name; the grants of sets of roles are remembered, a bounded number of them, so that clients
with the same roles share one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

from mesh.broker.claim import Claim
from mesh.broker.grant import Grant, joined
from mesh.broker.written import is_written, read

_SETS: Final = 1024  # of roles whose grants are remembered; a fleet has some ten

RolesOf = Callable[[Claim], tuple[str, ...]]
"""Returns the roles of a client at present: those of its claim, and those that the settings give."""

_Known = dict[tuple[str, ...], Grant]


@final
class Roles:
    """The grants of roles by their names. ``version`` grows with each change."""

    __slots__ = ("_by_name", "_known", "version")

    def __init__(self, by_name: Mapping[str, Grant] | None = None) -> None:
        self._by_name = dict(by_name or {})
        self._known: dict[Grant, tuple[int, _Known]] = {}  # by the grant of a class, with its version
        self.version = 0

    def take(self, other: Roles) -> None:
        """Be as ``other`` from now on."""
        self.version += 1
        self._by_name = other._by_name
        self._known.clear()

    def unknown(self, names: tuple[str, ...]) -> list[str]:
        """Those of ``names`` that are no roles."""
        return [name for name in names if name not in self._by_name and not is_written(name)]

    def grant(self, own: Grant, names: tuple[str, ...]) -> Grant:
        """What a client with these roles may do; ``own`` is the grant of its class."""
        found = self._known.get(own)
        if found is None or found[0] != own.version:
            found = self._known[own] = (own.version, {})
        known = found[1]
        grant = known.get(names)
        if grant is None:
            if len(known) >= _SETS:
                known.clear()
            roles = [(name, self._by_name[name]) for name in names if name in self._by_name]
            roles += [("", read(name, own.reason)) for name in names if is_written(name)]
            grant = known[names] = joined(own, roles) if roles else own
        return grant

    def in_force(self) -> dict[str, object]:
        """What each role allows, by its name."""
        return {name: grant.in_force() for name, grant in sorted(self._by_name.items())}


def roles_of_claim(claim: Claim) -> tuple[str, ...]:
    """The roles of a client to which the settings give none."""
    return claim.roles
