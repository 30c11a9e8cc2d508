"""What a provider of identities vouches for when it admits a client.

It knows names and times: never how the client proved them. What always holds: a value never changes, so it can be
shared; a connection keeps its claim until it ends, or until the client proves its identity again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from mesh.broker.peer import Peer


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


Ends = Callable[[Claim | None, Peer, str], int]
"""The reason code with which an open connection has to end now, or 0: by the client's claim, which it lacks until it is
identified, its peer, and its client id, empty if that is not known. After ``BANNED`` its will is not published."""

Ended = Callable[[int], None]
"""Called with the number of connections that were ended, when all have been looked at."""


def ignore(_ended: int) -> None:
    """The default of ``Ended``."""
