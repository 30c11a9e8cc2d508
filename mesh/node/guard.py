"""The providers of identities that a node runs, their exchange while it serves, and the bans that hold beside them.

It knows plans, chains and bans: never what a provider does, nor which connections there are. What always holds:

* a provider is started before a chain asks it, and stopped after none does;
* a provider whose plan has not changed stays, with all that it has cached;
* a client is admitted only if no ban concerns it at the moment in which its identity becomes known;
* whenever claims may have been lost, ``changed`` is called once, in the turn in which that became so; other changes of
  the settings look at no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import NamedTuple, final

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.node.prepared import Prepared
from mesh.policy.chain import Chain, Chains
from mesh.policy.given import GivenRoles
from mesh.policy.order import Order, Planned
from mesh.policy.providers import Provider
from mesh.policy.status import ProviderStatus
from mesh.policy.users import USERS
from mesh.transport.admission import Barrier
from mesh.wire.packets import Connect
from mesh.wire.reasons import NOT_AUTHORIZED


class _Running(NamedTuple):
    plan: Planned
    provider: Provider


@final
class Guard:
    """``chains`` finds the identities of clients, whose kind is ``kind``. ``changed`` is called after claims may have
    been lost. ``folder``: the node's, where providers keep what they have fetched."""

    def __init__(self, changed: Callable[[], None], bans: Barrier, kind: str, folder: Path | None = None) -> None:
        self.chains = Chains(Chain(()))
        self._bans = bans
        self._kind = kind
        self._given: GivenRoles | None = None  # if the settings give roles
        self._serving = False  # the providers are started
        self._changed = changed
        self._folder = folder
        self._running: dict[str, _Running] = {}
        self._asked: tuple[list[str], dict[str, tuple[str, ...]]] = [], {}
        self._stops: set[asyncio.Task[None]] = set()

    def decide(self, connect: Connect, peer: Peer, proven: Claim | None) -> Claim | Coroutine[object, object, Claim]:
        """The claim of a client, or a coroutine of it, as ``Chains.decide`` has it. Raises ``Refused``, also for a
        client that is banned, and so does the coroutine."""
        found = self.chains.decide(connect, peer, proven)
        if isinstance(found, Claim):
            if self._bans.up:
                self._bans.check(connect, peer, self._kind, found.name)
            return found
        return self._decided(found, connect, peer)

    async def _decided(self, found: Coroutine[object, object, Claim], connect: Connect, peer: Peer) -> Claim:
        claim = await found
        self._bans.check(connect, peer, self._kind, claim.name)
        return claim

    def lost(self, claim: Claim | None, peer: Peer, client_id: str) -> int:
        """The ``Ends`` of connections whose client is not admitted now in the way in which it was."""
        return 0 if claim is None or self.chains.holds(claim, peer) else NOT_AUTHORIZED

    async def start(self, order: Order) -> None:
        """Start the providers. Raises ``OSError`` or ``ValueError`` if one cannot work."""
        (await self.prepare(order)).commit()

    async def prepare(self, order: Order) -> Prepared:
        """Prepare other providers. Raises ``OSError`` or ``ValueError`` if one cannot work."""
        after: dict[str, _Running] = {}
        fresh: list[Provider] = []
        try:
            for plan in order.providers:
                running = self._running.get(plan.name)
                if running is not None and running.plan.key == plan.key:
                    after[plan.name] = running
                    continue
                await asyncio.to_thread(plan.load)
                provider = plan.make(None if running is None else running.provider)
                provider.folder = self._folder
                fresh.append(provider)
                await provider.start()
                after[plan.name] = _Running(plan, provider)
        except BaseException:
            self._stop(fresh)
            raise
        chains = _chains(order, {name: running.provider for name, running in after.items()})

        asked = [plan.name for plan in order.providers], dict(order.listeners)
        given = order.given if order.given.providers or order.given.clients else None

        def commit() -> None:
            stay = {running.provider for running in after.values()}
            gone = [running.provider for running in self._running.values() if running.provider not in stay]
            self._running = after
            self._serving = True
            self.chains.take(chains)
            for provider in fresh:
                provider.changed = self._changed
            self._stop(gone)
            differs = bool(fresh) or asked != self._asked or given != self._given
            self._asked, self._given = asked, given
            if differs:  # every connection is looked at then
                self._changed()

        prepared = Prepared()
        prepared.add(commit, lambda: self._stop(fresh))
        return prepared

    def roles_of(self, claim: Claim) -> tuple[str, ...]:
        """The roles of a client at present."""
        return claim.roles if self._given is None else self._given.of(claim)

    def standing(self, provider: str, name: str, roles: tuple[str, ...]) -> tuple[str, ...] | None:
        """The roles that a client has today which may be away: those that the settings give count as they are today.
        ``None`` if ``provider``, which admitted it, does not have it now. ``roles``: those that it had."""
        if not self._serving:
            return roles
        for one in self.chains.usual.providers:
            if one.name == provider:
                if one.lists and not one.knows(name):
                    return None
                return roles if one.names_roles else self.roles_of(Claim(name, provider))
        return None if provider == USERS else roles  # what else it was called may be another kind of provider now

    async def stop(self) -> None:
        """Stop all providers. The chains admit no client any longer."""
        self._serving = False
        self.chains.take(Chains(Chain(())))
        self._stop([running.provider for running in self._running.values()])
        self._running = {}
        await asyncio.gather(*self._stops, return_exceptions=True)

    def status(self) -> tuple[ProviderStatus, ...]:
        """The status of the providers, for ``mesh status`` and metrics."""
        return self.chains.status()

    def fault(self) -> str:
        """What is wrong with the providers, in one sentence; empty if they work."""
        return self.chains.fault()

    def in_force(self) -> dict[str, object]:
        """What the chains go by, by name."""
        return {**self.chains.in_force(), "roles": (self._given or GivenRoles()).in_force()}

    def _stop(self, providers: list[Provider]) -> None:
        for provider in providers:
            task = asyncio.get_running_loop().create_task(provider.stop(), name=f"stop of provider {provider.name}")
            self._stops.add(task)
            task.add_done_callback(self._stops.discard)


def _chains(order: Order, providers: dict[str, Provider]) -> Chains:
    return Chains(
        Chain(tuple(providers.values()), order.bind),
        {
            listener: Chain(tuple(providers[name] for name in names), order.bind)
            for listener, names in order.listeners.items()
        },
    )
