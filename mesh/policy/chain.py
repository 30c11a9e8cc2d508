"""Chains: the providers of identities that a listener asks, in their order.

It knows providers and claims: never what a provider looks at. What always holds:

* the first provider that allows or denies decides; a client that no provider allows is refused;
* a decision for which no provider has to wait is made at once, without a task;
* a decision takes at most ``DEADLINE`` seconds; a provider that fails with an unexpected error denies;
* all clients that no provider admits get the same reason code, so that it does not tell which names exist;
* a name that one provider knows is never admitted without a proof by another;
* a claim of any provider is bound to the CONNECT by the same rules (``Bind``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Final, final

from mesh.broker.claim import Claim
from mesh.broker.notices import Notices
from mesh.broker.peer import Peer
from mesh.policy.choice import Choice
from mesh.policy.providers import Provider, Verdict
from mesh.policy.status import ProviderStatus
from mesh.transport.authentication import Methods, Proof
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import (
    BAD_AUTHENTICATION_METHOD,
    BAD_USER_NAME_OR_PASSWORD,
    CONNECTION_RATE_EXCEEDED,
    NOT_AUTHORIZED,
    SERVER_BUSY,
    SERVER_UNAVAILABLE,
)

DEADLINE: Final = 10.0
"""Seconds. Each provider has a shorter one of its own; this is for all of a chain together."""

Bind = Callable[[Connect, Claim, bool], None]
"""Checks a claim against its CONNECT: the pattern of identities, client identifiers. The last argument says whether the
client proved it by an authentication method. Raises ``Refused``."""

log = logging.getLogger(__name__)


def unbound(connect: Connect, claim: Claim, proven: bool) -> None:
    """Binds no claim."""


@final
class Chain:
    """The providers of one or more listeners."""

    def __init__(self, providers: tuple[Provider, ...], bind: Bind = unbound, deadline: float = DEADLINE) -> None:
        self.providers = providers
        self._bind = bind
        self._refusal = _refusal({provider.refusal for provider in providers})
        self._deadline = deadline
        self._notices = Notices(log.exception, time.monotonic)

    def arrive(self, peer: Peer) -> None:
        """A connection begins. Raises ``Refused`` if no provider would admit its client, whatever it shows."""
        providers = self.providers
        if providers and all(provider.bars(peer.address) for provider in providers):
            providers[0].decisions.denied += 1
            raise Refused(CONNECTION_RATE_EXCEEDED, f"too many wrong passwords came from {peer.address:.80}")

    def decide(self, connect: Connect, peer: Peer) -> Claim | Coroutine[object, object, Claim]:
        """The claim of a client whose CONNECT names no authentication method; a coroutine of it if a provider has to
        wait. Raises ``Refused``, and so does the coroutine."""
        for index, provider in enumerate(self.providers):
            verdict = self._ask(provider, connect, peer)
            if isinstance(verdict, Claim):
                if not self._stands(provider, verdict):
                    break
                self._bind(connect, verdict, False)
                return verdict
            if verdict is not None:
                return self._wait(verdict, index, connect, peer)
        raise self._unadmitted(connect, peer)

    def proven(self, connect: Connect, claim: Claim) -> Claim:
        """The claim of a client that proved it by an authentication method. Raises ``Refused``."""
        for provider in self.providers:
            if provider.name == claim.provider and provider.holds(claim) and self._stands(provider, claim):
                self._bind(connect, claim, True)
                provider.decisions.allowed += 1
                return claim
        raise Refused(NOT_AUTHORIZED, f"the provider {claim.provider!r} does not vouch for {claim.name!r:.80} now")

    def begin(self, method: str, peer: Peer) -> Proof | None:
        """A new exchange of an authentication method; ``None`` if no provider offers it."""
        offering = tuple([provider for provider in self.providers if method and provider.method == method])
        if len(offering) > 1:
            return Choice(offering, peer)
        return offering[0].begin(peer) if offering else None

    def holds(self, claim: Claim) -> bool:
        """Whether a provider of this chain vouches for a claim that was given before."""
        for provider in self.providers:
            if provider.name == claim.provider:
                return provider.holds(claim) and self._stands(provider, claim)
        return False

    def _stands(self, provider: Provider, claim: Claim) -> bool:
        """Whether a provider's claim is enough: a name that another provider knows has to be proved."""
        if provider.proves:
            return True
        return all(not other.knows(claim.name) for other in self.providers)

    async def _wait(self, verdict: Awaitable[Verdict], index: int, connect: Connect, peer: Peer) -> Claim:
        """The decision, from the provider ``index`` on, whose verdict is on its way."""
        provider = self.providers[index]
        try:
            async with asyncio.timeout(self._deadline):
                found = await self._answer(provider, verdict)
                while found is None:
                    index += 1
                    if index == len(self.providers):
                        raise self._unadmitted(connect, peer)
                    provider = self.providers[index]
                    later = self._ask(provider, connect, peer)
                    found = later if later is None or isinstance(later, Claim) else await self._answer(provider, later)
                if not self._stands(provider, found):
                    raise self._unadmitted(connect, peer)
        except TimeoutError:
            why = f"the provider {provider.name!r} did not answer within {self._deadline:g} s"
            raise Refused(SERVER_UNAVAILABLE, why) from None
        self._bind(connect, found, False)
        return found

    def _ask(self, provider: Provider, connect: Connect, peer: Peer) -> Verdict | Awaitable[Verdict]:
        try:
            verdict = provider.decide(connect, peer)
        except Refused as refused:
            _count_refusal(provider, refused)
            raise
        except Exception as error:  # noqa: BLE001 - logged; an error in a provider must not let a client in
            raise self._failed(provider, error) from None
        if verdict is None or isinstance(verdict, Claim):
            _count(provider, verdict)
        return verdict

    async def _answer(self, provider: Provider, verdict: Awaitable[Verdict]) -> Verdict:
        try:
            found = await verdict
        except Refused as refused:
            _count_refusal(provider, refused)
            raise
        except Exception as error:  # noqa: BLE001 - as in ``_ask``
            raise self._failed(provider, error) from None
        _count(provider, found)
        return found

    def _failed(self, provider: Provider, error: Exception) -> Refused:
        provider.decisions.failed += 1
        self._notices.warn("failed", "the provider %r could not decide about a client: %r", provider.name, error)
        return Refused(SERVER_UNAVAILABLE, f"the provider {provider.name!r} could not decide")

    def _unadmitted(self, connect: Connect, peer: Peer) -> Refused:
        """No provider admitted the client."""
        for provider in self.providers:
            provider.unknown(connect, peer)
        asked = ", ".join(provider.name for provider in self.providers)
        return Refused(self._refusal, f"no provider of identities admits it; asked were: {asked}")


def _count(provider: Provider, verdict: Verdict) -> None:
    if verdict is None:
        provider.decisions.passed += 1
    else:
        provider.decisions.allowed += 1


def _count_refusal(provider: Provider, refused: Refused) -> None:
    if refused.reason in (SERVER_UNAVAILABLE, SERVER_BUSY):
        provider.decisions.failed += 1
    else:
        provider.decisions.denied += 1


def _refusal(codes: set[int]) -> int:
    """The code for a client that no provider admits. A provider of passwords denies a wrong one with 0x86, so a chain
    that has one uses it for unknown names too."""
    if BAD_USER_NAME_OR_PASSWORD in codes:
        return BAD_USER_NAME_OR_PASSWORD
    return BAD_AUTHENTICATION_METHOD if codes == {BAD_AUTHENTICATION_METHOD} else NOT_AUTHORIZED


@final
class Chains(Methods):
    """The chains of a node's listeners: ``chains`` by the listener's name (see ``Peer``), and ``usual`` for all others.
    They can be exchanged while the node serves: ``take``."""

    def __init__(self, usual: Chain, chains: Mapping[str, Chain] | None = None) -> None:
        self.usual = usual
        self._chains = dict(chains or {})

    def of(self, peer: Peer) -> Chain:
        """The chain that decides about a client."""
        return self._chains.get(peer.listener, self.usual)

    def decide(self, connect: Connect, peer: Peer, proven: Claim | None) -> Claim | Coroutine[object, object, Claim]:
        """The claim of a client, or a coroutine of it if a provider has to wait. ``proven``: the claim that the client
        proved by an authentication method. Raises ``Refused``, and so does the coroutine."""
        chain = self.of(peer)
        if proven is not None:
            return chain.proven(connect, proven)
        found = chain.decide(connect, peer)
        return found if isinstance(found, Claim) else self._still(found, peer)

    def holds(self, claim: Claim, peer: Peer) -> bool:
        """Whether the chain of a client's listener vouches for its claim at present."""
        return self.of(peer).holds(claim)

    async def _still(self, found: Coroutine[object, object, Claim], peer: Peer) -> Claim:
        """The claim, if it holds still: what it rests on may have been removed while a provider waited."""
        claim = await found
        if not self.holds(claim, peer):
            raise Refused(NOT_AUTHORIZED, f"what admitted {claim.name:.80} was removed while it waited")
        return claim

    def take(self, other: Chains) -> None:
        """Decide as ``other`` from now on."""
        self.usual, self._chains = other.usual, other._chains

    def arrive(self, peer: Peer) -> None:
        self.of(peer).arrive(peer)

    def begin(self, method: str, peer: Peer) -> Proof | None:
        return self.of(peer).begin(method, peer)

    def status(self) -> tuple[ProviderStatus, ...]:
        """The status of the providers, for ``mesh status`` and metrics."""
        return tuple(_status(provider) for provider in self._providers())

    def fault(self) -> str:
        """What is wrong with the first provider that does not work; empty if all do."""
        faults = (provider.fault() for provider in self._providers())
        return next((fault for fault in faults if fault), "")

    def _providers(self) -> list[Provider]:
        found = dict.fromkeys(self.usual.providers)
        for chain in self._chains.values():
            found |= dict.fromkeys(chain.providers)
        return list(found)

    def in_force(self) -> dict[str, object]:
        """What the chains go by, by name."""
        asked = {"": self.usual, **self._chains}
        return {
            "providers": {one.name: one.in_force() for chain in asked.values() for one in chain.providers},
            "order": {listener: [one.name for one in asked[listener].providers] for listener in sorted(asked)},
        }


def _status(provider: Provider) -> ProviderStatus:
    count, fault = provider.decisions, provider.fault()
    return ProviderStatus(
        provider.name, count.allowed, count.denied, count.passed, count.failed, count.cached, int(bool(fault)), fault
    )
