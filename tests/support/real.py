"""A front door and an edge with the real broker and journal, without a mesh."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from mesh.broker.broker import Broker
from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.broker.principal import BACKEND, Principal, everything
from mesh.broker.settings import Settings
from mesh.broker.trace import Tracer
from mesh.edge.devices import Devices
from mesh.frontdoor.door import FrontDoor
from mesh.journal.journal import Journal
from mesh.transport.admission import Admission
from mesh.transport.endpoint import Endpoint
from mesh.transport.listen import Listen
from mesh.transport.turn import Turn
from mesh.transport.wheel import Wheel
from mesh.transport.writer import ConnectionWriter
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, Connect, SubAck, Subscribe, Subscription
from mesh.wire.properties import Properties
from tests.fakes.engine import vehicle_principal
from tests.fakes.mesh import FakeMap, FakeMember, FakeMembers, identify, prover
from tests.support.bare import Bare


def back_end(connect: Connect, peer: Peer, proven: Claim | None) -> Principal:
    return Principal(connect.username or "anonymous", BACKEND, everything())


class RealEdge:
    """An edge without a mesh; back ends connect to an endpoint of its broker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epoch = 0

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.epoch += 1
        self.journal = Journal.open(self.folder, notify=loop.call_soon_threadsafe)
        settings = Settings()
        settings.keep_all = True
        settings.topic_aliases = 0
        self.broker = Broker(settings, self.journal, time.time, Tracer())
        self.broker.recover(self.journal.live())
        self.turn = Turn(loop, self._end_turn, ConnectionWriter(self.broker))
        self.wheel = Wheel(loop)
        self.wheel.start()
        self.devices = Devices(
            "edge-1", self.epoch, self.broker, self.journal, self.turn, self.wheel, prover(b"secret"),
            vehicle_principal, PacketLimits(), listen=Listen("device", "127.0.0.1", 0),
        )  # fmt: skip
        self.back_ends = Endpoint(
            "edge-1", self.broker, self.turn, self.wheel, back_end, listen=[Listen("tier", "127.0.0.1", 0)],
            admission=Admission(PacketLimits(), 99),
        )  # fmt: skip
        self.turn.add(self.devices.settle)
        self.journal.on_durable = self._durable
        self._durable(self.journal.durable_position)
        await self.devices.start()
        await self.back_ends.start()

    def _end_turn(self) -> None:
        if self.broker.end_turn():
            self.turn.wake()
        self.journal.commit()

    def _durable(self, position: int) -> None:
        self.broker.durable(position)
        self.devices.durable(position)
        self.turn.wake()

    async def kill(self) -> None:
        """Send nothing more; what was not confirmed may or may not be in the journal."""
        self.devices.stopping = True
        self.devices._listener.stop()
        for stream in [*self.devices.group.streams, *self.back_ends.group.streams]:
            stream.abort()
        await asyncio.sleep(0)
        self.journal.on_durable = lambda position: None
        await self._end()

    async def stop(self) -> None:
        await self.devices.stop(2.0)
        await self.back_ends.stop(2.0)
        await self._end()

    async def _end(self) -> None:
        self.back_ends._listeners.close()
        self.wheel.stop()
        await asyncio.to_thread(self.journal.close)


class RealMesh:
    def __init__(self, folder: Path) -> None:
        self.edge = RealEdge(folder / "journal")
        self.members = FakeMembers()

    async def __aenter__(self) -> RealMesh:
        await self.edge.start()
        self._announce()
        self.door = FrontDoor(
            "door", 1, [Listen("mqtt", "127.0.0.1", 0)], FakeMap("edge-1"), self.members, identify, prover(b"secret"),
            Admission(PacketLimits(), 99),
        )  # fmt: skip
        await self.door.start()
        self.port = self.door.ports[0]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.door.stop(2.0)
        await self.edge.stop()

    def _announce(self) -> None:
        self.members.members["edge-1"] = FakeMember("edge-1", ports={"device": self.edge.devices.port})

    async def restart(self, kill: bool = True) -> None:
        await (self.edge.kill() if kill else self.edge.stop())
        await self.edge.start()
        self._announce()
        self.door.members_changed()

    async def back_end(self, name: str, filter: str = "") -> Bare:
        properties = Properties()
        properties.session_expiry = 3600
        client = await Bare(MQTT5).hello(self.edge.back_ends.ports[0], name, clean_start=False, properties=properties)
        if filter:
            client.send(Subscribe(1, [Subscription(filter, 2)]))
            await client.wait(SubAck)
        return client
