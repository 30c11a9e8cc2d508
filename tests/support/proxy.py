"""A TCP proxy with which a test causes network faults: it cuts, freezes and resumes connections."""

from __future__ import annotations

import asyncio


class Proxy:
    """Listens on ``port`` of 127.0.0.1 and forwards bytes to the port ``target``, which a test may change."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.open = True  # False: new connections are closed at once
        self.passed = 0
        self.cut_after: int | None = None  # cut all connections after this number of bytes to the target
        self._running = asyncio.Event()
        self._running.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()
        self._writers.clear()

    def freeze(self) -> None:
        """Forward no bytes, but keep the connections open."""
        self._running.clear()

    def thaw(self) -> None:
        self._running.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        try:
            upstream, to_target = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, to_target}
        for source, sink, counted in ((reader, to_target, True), (upstream, writer, False)):
            task = asyncio.create_task(self._pump(source, sink, counted))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, counted: bool) -> None:
        try:
            while data := await source.read(65536):
                await self._running.wait()
                if counted and self.cut_after is not None:
                    left = self.cut_after - self.passed
                    if len(data) >= left:
                        sink.write(data[: max(0, left)])  # the first part of the data still arrives
                        self.passed += max(0, left)
                        self.cut_after = None
                        await asyncio.sleep(0.01)
                        self.cut()
                        return
                if counted:
                    self.passed += len(data)
                sink.write(data)
                await sink.drain()
            sink.write_eof()
        except (OSError, RuntimeError):
            self.cut_pair(sink)

    def cut_pair(self, sink: asyncio.StreamWriter) -> None:
        sink.transport.abort()
        self._writers.discard(sink)
