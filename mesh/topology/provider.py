"""Providers of identities as values, and the section ``identity``: who vehicles are.

It knows the keys of the file and which provider of the policy room each means. It must never know YAML or running
nodes. What always holds: values that ``load`` returned can be planned; a relative path was made absolute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Protocol, final

from mesh.policy.anonymous import ANONYMOUS, AnyVehicle
from mesh.policy.attempts import Attempts
from mesh.policy.certificate import Certificate, NameTemplate
from mesh.policy.given import GivenRoles, GivenToday
from mesh.policy.identity import Identity
from mesh.policy.order import Order, Planned
from mesh.policy.passwords import Passwords
from mesh.policy.pattern import Pattern
from mesh.policy.providers import Named, Provider
from mesh.policy.scram import ScramFile
from mesh.policy.template import PLACE
from mesh.topology import effects
from mesh.topology.keys import KEY, Form, Parts
from mesh.topology.remote import HttpSpec, JwtSpec
from mesh.transport.listen import Listen

USER: Final = "{user}"
"""The place of the identity in a template of ``backends.providers``."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSpec:
    """One provider. At most one of ``certificate``, ``passwords`` (a file of hashes), ``scram`` (a file of verifiers),
    ``jwt`` and ``http`` is set; without them it takes every client's word. ``certificate`` is one of ``FIELDS`` of
    ``policy.certificate``, and ``template`` the form of the name there. ``roles``: those of all whom it admits."""

    name: Annotated[str, KEY]
    certificate: Annotated[str, effects.PROVIDER] = ""
    template: Annotated[str, effects.PROVIDER] = PLACE
    passwords: Annotated[Path | None, effects.PROVIDER, Form("password")] = None
    scram: Annotated[Path | None, effects.PROVIDER] = None
    jwt: Annotated[JwtSpec | None, Parts(effects.PROVIDER)] = None
    http: Annotated[HttpSpec | None, Parts(effects.PROVIDER)] = None
    roles: Annotated[tuple[str, ...], effects.ROLES_GIVEN] = ()

    def load(self) -> None:
        """Load the code of this kind, with its libraries. That takes half a second, so a running node calls it in a
        thread."""
        if self.jwt is not None:
            import mesh.policy.jwt
        if self.http is not None:
            import mesh.policy.http  # noqa: F401

    @property
    def anonymous(self) -> bool:
        """Whether it takes every client's word."""
        kinds = (self.passwords, self.scram, self.jwt, self.http)
        return not self.certificate and all(kind is None for kind in kinds)


class Asking(Protocol):
    """A listener, as far as its chain is concerned."""

    @property
    def identify(self) -> tuple[str, ...]: ...

    def listen(self) -> Listen: ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRule:
    """``source``: the field of CONNECT that names the vehicle, for providers that take or prove a name; ``pattern``:
    that of all identities (see ``mesh.policy.pattern``). ``default`` is the vehicle of a client that leaves the field
    out; empty: none. ``client_ids``: the forms of client identifiers that a vehicle may use; empty: any.
    ``set_username``: the edge gets the identity as the user name. ``providers``: in the order in which they are asked.
    """

    source: Annotated[str, effects.IDENTITY, Form("from")]
    pattern: Annotated[str, effects.IDENTITY]
    default: Annotated[str, effects.IDENTITY] = ""
    client_ids: Annotated[tuple[str, ...], effects.NEW_CONNECTIONS] = ()
    set_username: Annotated[bool, effects.NEW_CONNECTIONS] = False
    providers: Annotated[tuple[ProviderSpec, ...], effects.PROVIDERS] = (ProviderSpec(name=ANONYMOUS),)

    def today(self) -> GivenToday:
        """The roles that these providers give, for a node that asks none of them."""
        named = frozenset(spec.name for spec in self.providers if spec.jwt is None and spec.http is None)
        return GivenToday(given(self.providers), named)

    def compile(self) -> Identity:
        return Identity(self.source, Pattern(self.pattern), self.default, self.client_ids)

    def order(self, attempts: Attempts, listeners: Iterable[Asking] = ()) -> Order:
        """The chains of a front door with these listeners."""
        identity = self.compile()

        def anonymous(_: Provider | None) -> Provider:
            return AnyVehicle(identity)

        rule = (self.source, self.pattern, self.default)
        plans = [
            Planned(ANONYMOUS, rule, anonymous) if spec.anonymous else planned(spec, PLACE, identity.named, attempts)
            for spec in self.providers
        ]
        return Order(tuple(plans), asked(listeners), identity.bind, given(self.providers))


def planned(spec: ProviderSpec, place: str, named: Named, attempts: Attempts) -> Planned:
    """The plan of a provider. ``place``: that of the identity in templates; ``named``: what a CONNECT says of
    itself."""

    def make(before: Provider | None) -> Provider:
        if spec.jwt is not None:
            return spec.jwt.provider(spec.name, before)
        if spec.http is not None:
            return spec.http.provider(spec.name, named)
        if spec.certificate:
            return Certificate(spec.name, spec.certificate, NameTemplate(spec.template, place))
        if spec.passwords is not None:
            return Passwords(spec.name, spec.passwords, named, attempts)
        assert spec.scram is not None, "a provider has a kind"
        return ScramFile(spec.name, spec.scram, attempts)

    return Planned(spec.name, replace(spec, roles=()), make, spec.load)  # other roles need no other provider


def given(
    specs: Iterable[ProviderSpec], clients: Mapping[tuple[str, str], tuple[str, ...]] | None = None
) -> GivenRoles:
    """The roles that providers give to all, and those of single clients, by the names of provider and client."""
    return GivenRoles({spec.name: spec.roles for spec in specs if spec.roles}, clients or {})


def asked(listeners: Iterable[Asking]) -> dict[str, tuple[str, ...]]:
    """The names of the providers that listeners ask, for those that do not ask all."""
    return {str(listener.listen()): listener.identify for listener in listeners if listener.identify}
