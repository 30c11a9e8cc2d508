"""One authentication method of several providers: which of them an exchange is for.

It knows providers and the client's data, which it does not understand. What always holds: the choice is made once, with
the first data that is not empty; data that no provider recognizes goes to the first one, which answers as to any client
that it does not know.
"""

from __future__ import annotations

from typing import final

from mesh.broker.peer import Peer
from mesh.policy.providers import Provider
from mesh.transport.authentication import Proof


@final
class Choice(Proof):
    """An exchange with one of ``providers``, which all have the same method; at least one."""

    def __init__(self, providers: tuple[Provider, ...], peer: Peer) -> None:
        super().__init__()
        self._providers = providers
        self._peer = peer
        self._chosen = False
        self._provider = providers[0]
        self._proof = providers[0].begin(peer)

    def step(self, data: bytes) -> tuple[bytes, bool]:
        if data and not self._chosen:
            self._chosen = True
            provider = next((one for one in self._providers if one.recognizes(data)), self._provider)
            if provider is not self._provider:
                self._provider, self._proof = provider, provider.begin(self._peer)
        found = self._proof.step(data)
        self.claim = self._proof.claim
        return found
