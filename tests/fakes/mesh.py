"""A front door and edges over real sockets, around fake brokers: the base of the device link's tests."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.broker.principal import Principal
from mesh.edge.breadcrumb import Breadcrumb
from mesh.edge.devices import Devices
from mesh.edge.suspects import Suspects
from mesh.frontdoor.context import DoorSettings
from mesh.frontdoor.door import FrontDoor
from mesh.frontdoor.status import EdgeLinkStatus
from mesh.policy.secrets import MeshSecret
from mesh.transport.admission import Admission
from mesh.transport.listen import Listen
from mesh.transport.refusal import Refused
from mesh.transport.turn import Turn
from mesh.transport.wheel import Wheel
from mesh.transport.writer import ConnectionWriter
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import Connect
from mesh.wire.reasons import NOT_AUTHORIZED
from tests.fakes.engine import FakeBroker, FakeJournal, vehicle_principal
from tests.support.proxy import Proxy
from tests.support.waiting import until


def prover(secret: bytes) -> MeshSecret:
    """Proves with a short secret."""
    return MeshSecret(hashlib.sha256(secret).digest())


def identify(connect: Connect, peer: Peer, proven: Claim | None) -> Claim:
    """The user name is the vehicle, if the client has not proved another claim; ``nobody`` is refused."""
    if proven is not None:
        return proven
    if not connect.username or connect.username == "nobody":
        raise Refused(NOT_AUTHORIZED, f"no vehicle {connect.username!r}")
    return Claim(connect.username, "test")


@dataclass
class FakeMember:
    name: str
    host: str = "127.0.0.1"
    ports: dict[str, int] = field(default_factory=dict)


class FakeMembers:
    """The membership; the test sets ``members``."""

    def __init__(self) -> None:
        self.members: dict[str, FakeMember] = {}

    def get(self, name: str) -> FakeMember | None:
        return self.members.get(name)

    def all(self, role: str) -> list[FakeMember]:
        return list(self.members.values())


@dataclass
class FakeRecord:
    vehicle: str
    edge: str
    epoch: int = 1


class FakeMap:
    """``known`` holds cached records and ``stored`` those of a look-up; ``away`` makes look-ups and claims fail."""

    def __init__(self, edge: str) -> None:
        self.edge = edge
        self.known: dict[str, FakeRecord] = {}
        self.stored: dict[str, FakeRecord] = {}
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()

    def cached(self, vehicle: str) -> FakeRecord | None:
        return self.known.get(vehicle)

    async def lookup(self, vehicle: str) -> FakeRecord | None:
        await self.gate.wait()
        if self.away:
            raise ConnectionError("etcd is unavailable")
        return self.stored.get(vehicle)

    async def claim(self, vehicle: str) -> FakeRecord:
        if self.away:
            raise ConnectionError("etcd is unavailable")
        return self.stored.setdefault(vehicle, FakeRecord(vehicle, self.edge))


class FakeEdge:
    """An edge around a ``FakeBroker``. ``restart`` simulates a new process: a new instance whose broker has the old
    sessions."""

    def __init__(self, name: str, secret: bytes = b"secret", grace: float = 30.0) -> None:
        self.name = name
        self.secret = secret
        self.grace = grace
        self.epoch = 0
        self.journal = FakeJournal()
        self.engine = FakeBroker(self.journal)
        self.admit: Callable[[str, int], Principal] = vehicle_principal
        self.limits = PacketLimits()
        self.confirming = True
        self.breadcrumb: Breadcrumb | None = None
        self.suspects: Suspects | None = None

    async def start(self) -> FakeEdge:
        loop = asyncio.get_running_loop()
        self.epoch += 1
        self.turn = Turn(loop, ConnectionWriter(self.engine))
        self.wheel = Wheel(loop)
        self.wheel.start()
        self.devices = Devices(
            self.name, self.epoch, self.engine, self.journal, self.turn, self.wheel, prover(self.secret), self._admit,
            self.limits, listen=Listen("device", "127.0.0.1", 0), grace=self.grace, breadcrumb=self.breadcrumb,
            suspects=self.suspects,
        )  # fmt: skip
        self.turn.add(self.devices.settle)
        self.turn.add(self._commit)
        await self.devices.start()
        return self

    def _admit(self, vehicle: str, epoch: int, roles: tuple[str, ...]) -> Principal:
        principal = self.admit(vehicle, epoch)
        principal.permissions.entitle(roles)
        return principal

    def _commit(self) -> None:
        journal = self.journal
        if journal.automatic and journal.durable < journal.position:
            self.commit()

    def commit(self) -> None:
        """Make the journal durable."""
        self.journal.durable = self.journal.position
        asyncio.get_running_loop().call_soon(self._durable, self.journal.position)

    def _durable(self, position: int) -> None:
        self.engine.durable(position)
        if self.confirming:
            self.devices.durable(position)
        self.turn.wake()

    async def kill(self) -> None:
        """As kill -9: connections end without DISCONNECT."""
        self.devices.stopping = True
        self.engine.dead = True
        self.wheel.stop()
        self.devices._listener.stop()
        for stream in list(self.devices.group.streams):
            stream.abort()
        await asyncio.sleep(0)

    async def restart(self) -> None:
        """Start a new process with the journal of the killed one."""
        sessions = self.engine.sessions
        self.journal = FakeJournal()
        self.engine = FakeBroker(self.journal)
        self.engine.sessions = sessions
        self.confirming = True
        await self.start()

    async def stop(self) -> None:
        await self.devices.stop(1.0)
        self.wheel.stop()


class FakeMesh:
    """One door, and one edge ``edge-1`` behind a proxy. Use with ``async with``."""

    def __init__(
        self,
        settings: DoorSettings | None = None,
        grace: float = 30.0,
        limits: PacketLimits | None = None,
        connections: int = 100,
    ) -> None:
        self.settings = settings or DoorSettings()
        self.admission = Admission(limits or PacketLimits(), connections)
        self.edge = FakeEdge("edge-1", grace=grace)
        self.members = FakeMembers()
        self.map = FakeMap("edge-1")
        self.proxy = Proxy(0)
        self.tracer: Any = None
        self.gate: asyncio.Event | None = None  # identities wait for it
        self.asked = 0  # identities that wait
        self.identity = ""  # of every client; empty: the one that it names
        self.expires = 0.0  # when the claims of clients end that have not proved another one

    def _identify(
        self, connect: Connect, peer: Peer, proven: Claim | None
    ) -> Claim | Coroutine[object, object, Claim]:
        if self.gate is not None:
            return self._later(self.gate, connect, peer, proven)
        found = Claim(self.identity, "test") if self.identity else identify(connect, peer, proven)
        return proven or Claim(found.name, "test", expires=self.expires)

    async def _later(self, gate: asyncio.Event, connect: Connect, peer: Peer, proven: Claim | None) -> Claim:
        self.asked += 1
        try:
            await gate.wait()
            return identify(connect, peer, proven)
        finally:
            self.asked -= 1

    async def __aenter__(self) -> FakeMesh:
        await self.edge.start()
        self.proxy.target = self.edge.devices.port
        await self.proxy.start()
        self.members.members["edge-1"] = FakeMember("edge-1", ports={"device": self.proxy.port})
        self.door = FrontDoor(
            "door", 1, [Listen("mqtt", "127.0.0.1", 0)], self.map, self.members, self._identify, prover(b"secret"),
            self.admission, self.tracer, self.settings,
        )  # fmt: skip
        await self.door.start()
        self.port = self.door.ports[0]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.door.stop(2.0)
        await self.edge.stop()
        await self.proxy.stop()

    @property
    def engine(self) -> FakeBroker:
        return self.edge.engine

    @property
    def link(self) -> EdgeLinkStatus:
        """The status of the link to edge-1."""
        return self.door.links.status()[0]

    async def up(self) -> None:
        """Wait until the link is up."""
        await until(lambda: self.link.state == "up")

    async def restart_edge(self) -> None:
        """Kill the edge and restart it at another port."""
        await self.edge.kill()
        await until(lambda: self.link.state == "away")
        await self.edge.restart()
        self.proxy.target = self.edge.devices.port


