"""An edge whose process dies when it handles certain packets: the base of the tests of poison."""


from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mesh.broker.peer import Peer
from mesh.broker.principal import Principal
from mesh.broker.session import Connection
from mesh.broker.shell import Flushable
from mesh.edge.breadcrumb import Crumb, last_crumb, lay_breadcrumb
from mesh.edge.suspects import Suspects
from mesh.figures.status import by_series
from mesh.node.ending import CRASH, KILLED, Ended
from mesh.wire.packets import Ack, Connect, Packet, Publish
from tests.fakes.mesh import FakeMesh
from tests.support.waiting import until

FATAL = b"fatal"
FATAL_CLIENT = "FATAL"
FATAL_ACK = 666


class Mortal:
    """The edge of ``mesh``. Its process dies when it handles a PUBLISH with the payload ``FATAL``, a CONNECT of
    ``FATAL_CLIENT`` or an acknowledgement ``FATAL_ACK``; ``how`` says what that looks like."""

    def __init__(self, mesh: FakeMesh, folder: Path) -> None:
        self.mesh = mesh
        self.how = CRASH
        self.deaths = 0
        self._folder = folder
        self._left: Crumb | None = None

    def prepare(self) -> None:
        """What a new process does before it listens."""
        edge = self.mesh.edge
        edge.suspects = Suspects(self._folder / "suspects.json")
        edge.suspects.blame(Ended(f"{self.deaths}", self.how, self.how != KILLED, "", ""), self._left)
        edge.breadcrumb = lay_breadcrumb(self._folder, f"{self.deaths + 1}")

    def arm(self) -> None:
        engine = self.mesh.engine
        receive, open = engine.receive, engine.open

        def received(connection: Connection, packet: Packet) -> None:
            if isinstance(packet, Publish) and packet.payload == FATAL:
                self._die()
            if isinstance(packet, Ack) and packet.packet_id == FATAL_ACK:
                self._die()
            receive(connection, packet)

        def opened(connect: Connect, principal: Principal, peer: Peer, shell: Flushable) -> Connection:
            if connect.client_id == FATAL_CLIENT:
                self._die()
            return open(connect, principal, peer, shell)

        engine.receive = received  # type: ignore[method-assign]
        engine.open = opened  # type: ignore[method-assign]

    def _die(self) -> None:
        """From now on nothing of this process is seen."""
        if not self.mesh.engine.dead:
            self.mesh.engine.dead = True
            self.mesh.edge.confirming = False
            self._left = last_crumb(self._folder)
            for link in self.mesh.edge.devices.links:
                link.abort()

    async def dies(self) -> None:
        """Wait until the process has died; start the next one."""
        await until(lambda: self.mesh.engine.dead)
        assert self._left is not None
        self.deaths += 1
        self.prepare()
        await self.mesh.restart_edge()
        self.arm()

    async def killed(self) -> None:
        """Kill the process from outside; start the next one."""
        self.deaths += 1
        self.prepare()
        await self.mesh.restart_edge()
        self.arm()

    @property
    def poisoned(self) -> float:
        return by_series(self.mesh.edge.devices.status())["mesh_poisoned_connections_total"]


@asynccontextmanager
async def mortal(folder: Path) -> AsyncIterator[Mortal]:
    mesh = FakeMesh()
    it = Mortal(mesh, folder)
    it.prepare()
    async with mesh:
        it.arm()
        yield it


def fatal(name: str, packet_id: int = 1) -> Publish:
    return Publish(f"vehicles/{name}/t", FATAL, 1, packet_id=packet_id)
