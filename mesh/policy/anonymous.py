"""Providers that take a client's word: no proof is asked for.

They know the field that names the client. What always holds: such a provider admits every client that names itself in
the right form, so it is the last one of a chain; the chain does not let it admit a name that another one knows.
"""

from __future__ import annotations

from typing import Final, final

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.policy.identity import Identity
from mesh.policy.providers import Provider, Verdict
from mesh.wire.packets import Connect
from mesh.wire.reasons import BAD_USER_NAME_OR_PASSWORD

ANONYMOUS: Final = "anonymous"
"""The name of the providers, and of a back end without a user name."""


@final
class AnyVehicle(Provider):
    """Every client is the vehicle that it names."""

    def __init__(self, identity: Identity) -> None:
        super().__init__(ANONYMOUS, proves=False)
        self._identity = identity

    def decide(self, connect: Connect, peer: Peer) -> Verdict:
        return Claim(self._identity.vehicle_of_connect(connect), self.name)


@final
class AnyUser(Provider):
    """Every client is the back end that its user name says; without a user name it is ``ANONYMOUS``."""

    def __init__(self) -> None:
        super().__init__(ANONYMOUS, proves=False, refusal=BAD_USER_NAME_OR_PASSWORD)

    def decide(self, connect: Connect, peer: Peer) -> Verdict:
        return Claim(ANONYMOUS if connect.username is None else connect.username, self.name)
