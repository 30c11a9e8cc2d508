"""What a provider of identities vouches for when it admits a client.

It knows names and times: never how the client proved them. What always holds: a value never changes, so it can be
shared; a connection keeps its claim until it ends, or until the client proves its identity again.
"""

from __future__ import annotations

from typing import final


@final
class Claim:
    """``name`` is the identity: of a vehicle at a front door, of a user at a core. ``provider`` is the name of the
    provider. ``roles`` are those that the provider gave. ``expires`` is in seconds since 1970, 0 for never. ``proof``
    names what the claim rests on, in the provider's own words, such as a certificate's fingerprint or a token's
    identifier: the provider is asked with it whether the claim still holds."""

    __slots__ = ("expires", "name", "proof", "provider", "roles")

    def __init__(
        self, name: str, provider: str, roles: tuple[str, ...] = (), expires: float = 0.0, proof: str = ""
    ) -> None:
        self.name = name
        self.provider = provider
        self.roles = roles
        self.expires = expires
        self.proof = proof

    def __repr__(self) -> str:
        return f"Claim({self.name!r}, {self.provider!r}, {self.roles!r}, {self.expires!r})"
