"""The back ends of a core: their listeners, who is admitted, and what limits them.

It composes the endpoint, admission and credentials: never sessions or edges. What always holds: all listeners share
the users, the attempts, the buffers and the limit of connections; a change of the settings takes effect in one turn; a
verifier is made in a thread of its own, and only for a password that is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import final

from mesh.broker.principal import Grant, Principal
from mesh.node.brokerhost import BrokerHost
from mesh.node.config import NodeConfig
from mesh.node.packetlimits import ClientLimits
from mesh.node.prepared import Prepared
from mesh.policy.attempts import Attempts
from mesh.policy.scram import ScramMethods, Verifier, make_verifier
from mesh.topology.topology import BackendRule
from mesh.transport.admission import Admission
from mesh.transport.buffers import Buffers
from mesh.transport.endpoint import Endpoint
from mesh.transport.status import CLIENT, SocketsStatus
from mesh.transport.trail import Trail


@final
class BackEndClients:
    """``grant``: what back ends may do, which its owner changes. Raises ``OSError`` if this process may not open as
    many files as the topology asks for."""

    def __init__(self, config: NodeConfig, grant: Grant) -> None:
        topology = config.topology
        self._rule = topology.backends
        self._grant = grant
        self._verifiers: dict[str, Verifier] = {}
        self.attempts = Attempts(topology.limits.wrong_passwords)
        self.buffers = Buffers(config.buffer_bytes())
        self._backends = self._rule.compile(grant, self.attempts)
        self._methods = ScramMethods(self._verifiers, required=False, attempts=self.attempts)
        self._limits = ClientLimits(config.client_limits())
        self._admission = Admission(self._limits.present, config.connections(), config.spec.redirect, self._methods)
        self._endpoint: Endpoint | None = None

    async def listen(self, config: NodeConfig, host: BrokerHost, trail: Trail | None) -> None:
        """Accept back ends. Raises ``OSError``, which names the address, if listening fails."""
        limits = config.topology.limits
        self._verifiers = await _verifiers(self._rule, BackendRule(anonymous=False), {})
        self._methods.take(self._verifiers)
        self._endpoint = Endpoint(
            config.name, host.broker, host.turn, host.wheel, self._backends.principal_of,
            listen=config.listens(), admission=self._admission,
            connect_timeout=limits.connect_timeout, packet_rate=limits.packet_rate, buffers=self.buffers,
            proven=self._backends.proven, trail=trail,
        )  # fmt: skip
        await self._endpoint.start()

    async def prepare(self, config: NodeConfig, expel: Callable[[Callable[[Principal], bool]], None]) -> Prepared:
        """Prepare other settings. ``expel`` closes the connections that its argument is true for. Raises
        ``OSError`` as the constructor and ``listen`` do."""
        endpoint = self._endpoint
        assert endpoint is not None, "settings are followed by a core that serves"
        rule, limits, most = config.topology.backends, config.topology.limits, config.connections()
        verifiers = await _verifiers(rule, self._rule, self._verifiers)
        backends = rule.compile(self._grant, self.attempts)
        changed = _admitted(rule) != _admitted(self._rule)

        def commit() -> None:
            self._rule, self._verifiers = rule, verifiers
            self.attempts.allow(limits.wrong_passwords)
            self.buffers.limit = config.buffer_bytes()
            self._methods.take(verifiers)
            admission = self._admission
            admission.limits = self._limits.take(config.client_limits())
            admission.most = most
            admission.redirect = config.spec.redirect
            endpoint.limit(most, limits.connect_timeout, limits.packet_rate)
            is_lost = self._backends.take(backends)
            if changed:
                expel(is_lost)

        prepared = Prepared()
        prepared.add(commit)
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

    def in_force(self, seal: Callable[[bytes], str]) -> dict[str, object]:
        """What holds at present, by name, with ``seal`` of each user's password."""
        endpoint = {} if self._endpoint is None else self._endpoint.in_force()
        return {**endpoint, **self._backends.in_force(seal), "wrong_passwords": self.attempts.in_force()}

    def detail(self) -> str:
        """What is wrong with certificates, or will be soon, in one sentence; else empty."""
        return "" if self._endpoint is None else self._endpoint.detail()

    def status(self) -> tuple[SocketsStatus, ...]:
        """Figures of all listeners together; none before ``listen``."""
        return () if self._endpoint is None else (self._endpoint.status(CLIENT),)


def _admitted(rule: BackendRule) -> tuple[bool, set[str]]:
    return rule.anonymous, {user.user for user in rule.users}


async def _verifiers(rule: BackendRule, before: BackendRule, known: dict[str, Verifier]) -> dict[str, Verifier]:
    """The verifiers of a rule's users; ``known`` are those of the rule ``before``. A verifier takes milliseconds."""
    kept = {user.user: known[user.user] for user in rule.users if user in before.users}
    fresh = [user for user in rule.users if user.user not in kept]
    if not fresh:
        return kept
    made = await asyncio.to_thread(lambda: {user.user: make_verifier(user.password) for user in fresh})
    return kept | made
