"""The back ends of a core: their listeners, who is admitted, and what limits them.

It composes the endpoint, admission and the guard: never sessions or edges. What always holds: all listeners share the
providers of identities, the attempts, the buffers and the limit of connections; a change of the settings takes effect
in one turn.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import final

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.broker.principal import Principal
from mesh.node.brokerhost import BrokerHost
from mesh.node.config import NodeConfig
from mesh.node.guard import Guard
from mesh.node.packetlimits import ClientLimits
from mesh.node.prepared import Prepared
from mesh.policy.access import Grants
from mesh.policy.attempts import Attempts
from mesh.policy.bans import Bans
from mesh.policy.order import Order
from mesh.policy.status import ProviderStatus
from mesh.registry.bans import USER
from mesh.transport.admission import Admission
from mesh.transport.arrivals import Arrivals
from mesh.transport.buffers import Buffers
from mesh.transport.endpoint import Endpoint
from mesh.transport.status import CLIENT, SocketsStatus
from mesh.transport.trail import Trail
from mesh.wire.packets import Connect


@final
class BackEndClients:
    """``grants``: what back ends may do, which its owner changes; ``bans``: who is kept out, likewise. Raises
    ``OSError`` if this process may not open as many files as the topology asks for."""

    def __init__(self, config: NodeConfig, grants: Grants, bans: Bans) -> None:
        topology = config.topology
        self._grants = grants
        self._seal = config.seal
        self._host: BrokerHost | None = None
        self.attempts = Attempts(topology.limits.wrong_passwords)
        self.buffers = Buffers(config.buffer_bytes())
        self._guard = Guard(self._claims_changed, bans, USER, config.folder)
        self._limits = ClientLimits(config.client_limits())
        self.arrivals = Arrivals(config.arrivals())
        self._admission = Admission(
            self._limits.present, config.connections(), config.spec.redirect, self._guard.chains, self.arrivals, bans
        )
        self._endpoint: Endpoint | None = None

    async def listen(self, config: NodeConfig, host: BrokerHost, trail: Trail | None) -> None:
        """Accept back ends. Raises ``OSError``, which names the address, if listening fails; ``OSError`` or
        ``ValueError`` if a provider of identities cannot work."""
        limits = config.topology.limits
        await self._guard.start(self._order(config))
        self._host = host
        self._grants.standing = self._guard.standing
        host.broker.judge()
        self._endpoint = Endpoint(
            config.name, host.broker, host.turn, host.wheel, self._authenticate,
            listen=config.listens(), admission=self._admission,
            connect_timeout=limits.connect_timeout, packet_rate=limits.packet_rate, buffers=self.buffers,
            trail=trail, roles_of=self._guard.roles_of,
        )  # fmt: skip
        await self._endpoint.start()

    async def prepare(self, config: NodeConfig) -> Prepared:
        """Prepare other settings. Raises ``OSError`` and ``ValueError`` as the constructor and ``listen`` do."""
        endpoint = self._endpoint
        assert endpoint is not None, "settings are followed by a core that serves"
        limits, most = config.topology.limits, config.connections()

        def commit() -> None:
            self.attempts.allow(limits.wrong_passwords)
            self.buffers.limit = config.buffer_bytes()
            self.arrivals.take(config.arrivals())
            admission = self._admission
            admission.limits = self._limits.take(config.client_limits())
            admission.most = most
            admission.redirect = config.spec.redirect
            endpoint.limit(most, limits.connect_timeout, limits.packet_rate)

        with Prepared() as prepared:
            prepared.add(commit)
            prepared.include(await self._guard.prepare(self._order(config)))
            listeners = await endpoint.prepare(config.listens())
            prepared.add(listeners.commit, listeners.withdraw)
        return prepared

    def transferred(self) -> tuple[int, int]:
        """Bytes from and to back ends."""
        endpoint = self._endpoint
        return (0, 0) if endpoint is None else (endpoint.group.bytes_in, endpoint.group.bytes_out)

    def pause(self) -> None:
        """Read no back end until ``resume``: the journal cannot take more."""
        if self._endpoint is not None:
            self._endpoint.pause()

    def resume(self) -> None:
        """Read the back ends again."""
        if self._endpoint is not None:
            self._endpoint.resume()

    async def stop(self, grace: float) -> None:
        """Accept no more, tell every back end, and end within ``grace`` seconds."""
        if self._endpoint is not None:
            await self._endpoint.stop(grace)
        await self._guard.stop()

    def in_force(self) -> dict[str, object]:
        """What holds at present, by name, with a seal of each user's password."""
        endpoint = {} if self._endpoint is None else self._endpoint.in_force()
        return {**endpoint, **self._guard.in_force(), "wrong_passwords": self.attempts.in_force()}

    def detail(self) -> str:
        """What is wrong with providers of identities or certificates, or will be soon, in one sentence; else empty."""
        return self._guard.fault() or ("" if self._endpoint is None else self._endpoint.detail())

    def providers(self) -> tuple[ProviderStatus, ...]:
        """Figures of the providers of identities."""
        return self._guard.status()

    def status(self) -> tuple[SocketsStatus, ...]:
        """Figures of all listeners together; none before ``listen``."""
        return () if self._endpoint is None else (self._endpoint.status(CLIENT),)

    # Internal

    def _order(self, config: NodeConfig) -> Order:
        return config.topology.backends.order(self.attempts, self._seal, config.spec.listen)

    def _authenticate(self, connect: Connect, peer: Peer, proven: Claim | None) -> Principal | Awaitable[Principal]:
        found = self._guard.decide(connect, peer, proven)
        if isinstance(found, Claim):
            return self._grants.backend(found, self._guard.roles_of(found))
        return self._wait(found)

    async def _wait(self, found: Awaitable[Claim]) -> Principal:
        claim = await found
        return self._grants.backend(claim, self._guard.roles_of(claim))

    def _claims_changed(self) -> None:
        if self._host is not None:
            self._host.expel(self._guard.lost)
            self._host.broker.review(self._guard.roles_of)
            self._host.broker.judge()
