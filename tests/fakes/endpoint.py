"""An endpoint around the fake broker, over real sockets."""

from __future__ import annotations

import asyncio

from mesh.broker.principal import BACKEND, Principal, everything
from mesh.transport.admission import Admission
from mesh.transport.buffers import Buffers
from mesh.transport.endpoint import Authenticate, Endpoint
from mesh.transport.listen import Listen
from mesh.transport.trail import Trail
from mesh.transport.turn import Turn
from mesh.transport.wheel import Wheel
from mesh.transport.writer import ConnectionWriter
from mesh.wire.limits import PacketLimits
from tests.fakes.engine import FakeBroker, FakeJournal

PRINCIPAL = Principal("app", BACKEND, everything())


class EndpointNode:
    """An endpoint around a ``FakeBroker``."""

    def __init__(self, authenticate: Authenticate | None = None) -> None:
        self.authenticate = authenticate or (lambda connect, peer, proven: PRINCIPAL)
        self.connect_timeout = 10.0
        self.buffers = Buffers()
        self.admission = Admission(PacketLimits(), 10)
        self.trail: Trail | None = None

    async def __aenter__(self) -> EndpointNode:
        loop = asyncio.get_running_loop()
        self.journal = FakeJournal()
        self.engine = FakeBroker(self.journal)
        self.turn = Turn(loop, ConnectionWriter(self.engine))
        self.turn.add(lambda: self.engine.durable(self.journal.position))
        self.turn.add(ConnectionWriter(self.engine))
        self.wheel = Wheel(loop)
        self.wheel.start()
        self.endpoint = Endpoint(
            "core", self.engine, self.turn, self.wheel, self.authenticate,
            listen=[Listen("mqtt", "127.0.0.1", 0)], admission=self.admission,
            connect_timeout=self.connect_timeout, buffers=self.buffers,
            trail=self.trail,
        )  # fmt: skip
        await self.endpoint.start()
        self.port = self.endpoint.ports[0]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.endpoint.stop(2.0)
        self.wheel.stop()
