"""One listener with streams that send back what they get."""

from __future__ import annotations

import asyncio

from mesh.transport.accept import Arrive, anyone
from mesh.transport.listen import Listen, TlsFiles
from mesh.transport.listener import Listener
from mesh.transport.pace import Pace
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.wheel import Wheel
from mesh.wire.limits import PacketLimits


class Echo(Stream):
    """Ends at its deadline, which starts at accept. ``why``: why it was expelled."""

    def __init__(self, group: StreamGroup) -> None:
        super().__init__(group)
        self.why = ""

    def accepted(self) -> None:
        self.group.wheel.watch(self, 60)

    def opened(self) -> None:
        self.group.wheel.forget(self)

    def received(self, data: bytes) -> None:
        self.write(data)

    def expired(self) -> None:
        self.finish()

    def expel(self, reason: int, why: str) -> None:
        self.why = why
        super().expel(reason, why)


class Hall:
    """A listener for ``limit`` connections; ``tls`` is what it needs for TLS. ``listen``: another listener, with frames
    of WebSocket within ``limits``."""

    def __init__(
        self,
        limit: int = 10,
        tls: TlsFiles | None = None,
        handshake: float = 10.0,
        listen: Listen | None = None,
        limits: PacketLimits | None = None,
        pace: Pace | None = None,
        arrive: Arrive = anyone,
    ) -> None:
        self.arrive = arrive
        self.pace = pace
        self.limit = limit
        self.limits = limits
        self.handshake = handshake
        self.listen = listen or Listen("mqtt" if tls is None else "mqtts", "127.0.0.1", 0, tls=tls)
        self.made: list[Echo] = []

    async def __aenter__(self) -> Hall:
        loop = asyncio.get_running_loop()
        self.wheel = Wheel(loop)
        self.wheel.start()
        self.group = StreamGroup(loop, self.wheel)
        self.listener = Listener(
            "door", self.listen, self.group, self._stream, self.limit, handshake=self.handshake, limits=self.limits,
            pace=self.pace, arrive=self.arrive,
        )  # fmt: skip
        await self.listener.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self.listener.stop()
        for stream in list(self.group.streams):
            stream.abort()
        self.wheel.stop()

    def _stream(self) -> Echo:
        self.made.append(Echo(self.group))
        return self.made[-1]

    def streams(self) -> list[Stream]:
        return list(self.group.streams)
