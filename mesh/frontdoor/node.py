"""The front door as a node of the mesh: its policy, the map and the membership put together.

It only composes; ``door`` handles the connections. What always holds: a vehicle is identified by the rule of the
topology before it is looked up; the bans are known before the first vehicle is accepted.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, final

from mesh.figures.node import NodeStatus
from mesh.frontdoor.context import DoorSettings
from mesh.frontdoor.door import FrontDoor
from mesh.frontdoor.ownermap import DoorMap
from mesh.frontdoor.status import DoorStatus
from mesh.node.closing import close_all, close_together
from mesh.node.config import DEVICE, NodeConfig
from mesh.node.follower import SettingsFollower
from mesh.node.guard import Guard
from mesh.node.newest import newest
from mesh.node.prepared import Prepared
from mesh.node.revocation import Revocation
from mesh.node.services import Services
from mesh.policy.attempts import Attempts
from mesh.policy.bans import Bans
from mesh.policy.order import Order
from mesh.registry.bans import VEHICLE
from mesh.registry.members import Member
from mesh.transport.admission import Admission
from mesh.transport.arrivals import Arrivals
from mesh.transport.waiting import until

# Seconds that a start waits for all edges: otherwise the first edges to start would get all the first vehicles.
_FIRST_EDGES: Final = 5.0


@final
class DoorNode:
    """One front door. ``start`` raises ``OSError``, which names the address, if listening fails."""

    def __init__(self, config: NodeConfig) -> None:
        self._configure(config)
        self._follower: SettingsFollower | None = None
        self._services: Services | None = None
        self._door: FrontDoor | None = None
        self._bans = Bans()
        self._guard = Guard(self._claims_changed, self._bans, VEHICLE, config.folder)
        self._revocation: Revocation | None = None

    def _configure(self, config: NodeConfig) -> None:
        self._config = config
        self._rule = config.topology.identity
        self._attempts = Attempts(config.topology.limits.wrong_passwords, shared=True)

    async def start(self) -> None:
        """Follow the map, link to the edges, then accept vehicles."""
        self._configure(await newest(self._config))
        config = self._config
        services = self._services = Services(config)
        listen = config.listens()
        guard = self._guard
        await guard.start(self._order(config))
        admission = Admission(
            config.client_limits(), config.connections(), config.spec.redirect, guard.chains,
            Arrivals(config.arrivals()), self._bans,
        )  # fmt: skip
        epoch = time.time_ns() // 1_000_000  # grows with each start, also without etcd
        map = DoorMap(services.map.recent, services.map.lookup, services.claim, services.term)
        door = self._door = FrontDoor(
            config.name, epoch, listen, map, services.members, guard.decide, config.secret,
            admission, services.tracer, _settings(config), lambda edge: config.unix_path(edge, DEVICE),
            config.secure(), guard.roles_of,
        )  # fmt: skip
        await services.start(self._member)
        self._revocation = Revocation(
            services.client, config.topology.mesh, config.name, config.folder, self._bans, VEHICLE, door.expel
        )
        await self._revocation.start(services.patience())
        await self._wait_for_edges(services)
        await door.start()
        await services.announce({})
        await services.show(self.status)
        self._follower = SettingsFollower.of(services.client, config, self.prepare, self.in_force)
        await self._follower.start()

    async def prepare(self, config: NodeConfig) -> Prepared:
        """Prepare other settings. Raises ``OSError`` if an address cannot be taken, or if this process may not open as
        many files as they ask for; ``OSError`` or ``ValueError`` if a provider of identities cannot work, without which
        this door could not start again."""
        services, door = self._services, self._door
        if services is None or door is None:
            raise ValueError(f"{self._config.name} has not started yet")
        settings, limits, most = _settings(config), config.client_limits(), config.connections()

        def commit() -> None:
            self._config = config
            self._attempts.allow(config.topology.limits.wrong_passwords)
            door.take(settings, limits, most, config.spec.redirect)

        with Prepared() as prepared:
            prepared.add(commit, door.settle)
            listeners = await door.prepare(config.listens())
            prepared.add(listeners.commit, listeners.withdraw)
            prepared.include(await self._guard.prepare(self._order(config)))
            prepared.include(await services.prepare(config))
            door.widen(limits, settings.topic_aliases)
        return prepared

    async def _wait_for_edges(self, services: Services) -> None:
        names = [edge.name for edge in self._config.topology.edges()]

        def open(name: str) -> bool:
            member = services.members.get(name)
            return member is not None and DEVICE in member.ports

        await until(lambda: all(open(name) for name in names), _FIRST_EDGES)

    def _order(self, config: NodeConfig) -> Order:
        """The chains of this door. What names a vehicle stays as it was when this process started."""
        own = self._rule
        rule = replace(config.topology.identity, source=own.source, pattern=own.pattern, default=own.default)
        return rule.order(self._attempts, config.spec.listen)

    def _claims_changed(self) -> None:
        if self._door is not None:
            self._door.expel(self._guard.lost)
            self._door.entitle()

    def _member(self, old: Member | None, new: Member | None) -> None:
        if self._door is not None:
            self._door.members_changed()

    async def stop(self, grace: float) -> None:
        """Dismiss the vehicles, spread over the grace period; they connect again through another door. Meanwhile this
        one is announced no longer, and so not asked for votes."""
        door, services = self._door, self._services
        closings: list[Callable[[], Awaitable[None]]] = []
        if self._follower is not None:
            closings.append(self._follower.stop)
        if self._revocation is not None:
            closings.append(self._revocation.stop)
        if door is not None and services is not None:
            closings.append(lambda: close_together((services.withdraw(), door.stop(grace))))
        if services is not None:
            closings.append(services.stop)
        closings.append(self._guard.stop)
        await close_all(*closings)

    def in_force(self) -> dict[str, object]:
        """What holds in the parts of this door at present, by name."""
        door, services, identity = self._door, self._services, self._rule
        if door is None or services is None:
            return {}
        return {
            "vehicles": door.in_force(), "wrong_passwords": self._attempts.in_force(),
            "identity": {"from": identity.source, "pattern": identity.pattern, **self._guard.in_force()},
            **services.in_force(),
        }  # fmt: skip

    def status(self) -> NodeStatus:
        """The status, for ``mesh status`` and metrics."""
        door, services, follower = self._door, self._services, self._follower
        if door is None or services is None:
            return NodeStatus(revision=self._config.revision)
        found = door.status()
        return DoorStatus(
            metrics=services.metrics,
            detail=door.clients.buffers.strain()
            or ("" if follower is None else follower.detail)
            or self._guard.fault()
            or door.detail(),
            revision=self._config.revision if follower is None else follower.revision,
            begun=self._config.revision if follower is None else follower.begun,
            connections=found.clients.connections,
            door=found,
            attempts=self._attempts.status(),
            providers=self._guard.status(),
            bans=self._bans.status(),
            services=services.status(),
        )


def _settings(config: NodeConfig) -> DoorSettings:
    limits = config.topology.limits
    return DoorSettings(
        connect_timeout=limits.connect_timeout,
        attach_timeout=limits.connect_wait,
        held_per_vehicle=limits.held_bytes,
        held=config.buffer_bytes(),
        buffers=config.buffer_bytes(),
        packet_rate=limits.packet_rate,
        topic_aliases=limits.topic_aliases,
        set_username=config.topology.identity.set_username,
        arrivals=config.arrivals(),
        vehicle_connects=limits.vehicle_connects,
    )
