"""The providers of identities that look at tokens, or ask another server, as values.

It knows what each key of the file means for the policy room. It must never know YAML or running nodes. What always
holds: values that ``load`` returned make a provider; a relative path was made absolute; the libraries of these
providers, which take 30 MB and a third of a second, are loaded only by a process that makes or checks one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

from mesh.policy.providers import Named, Provider
from mesh.policy.secrettext import SecretText
from mesh.topology import effects
from mesh.topology.keys import SECRET, TIME

if TYPE_CHECKING:
    from mesh.policy.jwks import KeySource


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSpec:
    """``keys``: the file or the URL of a JSON Web Key Set; ``ca`` and ``refresh`` are for a URL. ``identity`` and
    ``roles``: the claims with them (see ``TokenRule``)."""

    keys: Annotated[str, effects.TOKENS]
    ca: Annotated[Path | None, effects.NEW_CONNECTIONS] = None
    refresh: Annotated[float, effects.TOKENS, TIME] = 300.0
    issuer: Annotated[tuple[str, ...], effects.TOKENS]
    audience: Annotated[tuple[str, ...], effects.TOKENS] = ()
    algorithms: Annotated[tuple[str, ...], effects.TOKENS]
    leeway: Annotated[float, effects.TOKENS, TIME] = 30.0
    identity: Annotated[str, effects.TOKENS] = "sub"
    roles: Annotated[str, effects.TOKENS] = ""

    def source(self) -> KeySource:
        """Where the keys come from. Raises ``ValueError`` if they cannot come from there."""
        from mesh.policy.jwks import KeyFile, KeyUrl

        if "://" in self.keys:
            return KeyUrl(self.keys, self.algorithms, self.ca, refresh=self.refresh)
        return KeyFile(Path(self.keys), self.algorithms)

    def provider(self, name: str, before: Provider | None = None) -> Provider:
        """The provider with this name, which replaces ``before``. Raises ``ValueError`` for a rule that is not safe."""
        from mesh.policy.jwt import Tokens
        from mesh.policy.token import TokenRule

        rule = TokenRule(self.issuer, self.audience, self.algorithms, self.leeway, self.identity, self.roles)
        return Tokens(name, rule, self.source()).replace(before)


@final
@dataclass(frozen=True, slots=True)
class HeaderSpec:
    """A header with its value, which may be a secret."""

    name: str
    value: SecretText


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSpec:
    """See ``HttpRule``."""

    url: Annotated[str, effects.NEW_CONNECTIONS]
    ca: Annotated[Path | None, effects.NEW_CONNECTIONS] = None
    timeout: Annotated[float, effects.NEW_CONNECTIONS, TIME] = 2.0
    parallel: Annotated[int, effects.NEW_CONNECTIONS] = 64
    cache: Annotated[float, effects.NEW_CONNECTIONS, TIME] = 60.0
    on_failure: Annotated[str, effects.NEW_CONNECTIONS] = "deny"
    headers: Annotated[tuple[HeaderSpec, ...], effects.NEW_CONNECTIONS, SECRET] = ()

    def provider(self, name: str, named: Named) -> Provider:
        """The provider with this name. Raises ``ValueError`` for a URL that may not be asked."""
        from mesh.policy.http import Http, HttpRule

        headers = {header.name: header.value for header in self.headers}
        rule = HttpRule(self.url, self.ca, self.timeout, self.parallel, self.cache, self.on_failure, headers)
        return Http(name, rule, named)
