"""An HTTP server that answers as a test says, with TLS or without."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType

import trustme
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebServer:
    """``async with WebServer(handler) as server:`` listens on a port of this machine. ``asked`` counts requests."""

    def __init__(self, handler: Handler, folder: Path | None = None, names: tuple[str, ...] = ("127.0.0.1",)) -> None:
        """With a ``folder`` it has TLS, and the file of its authority is ``ca``."""
        self.handler = handler
        self.asked = 0
        self.ca: Path | None = None
        self.port = 0
        self._tls: ssl.SSLContext | None = None
        self._runner: web.ServerRunner | None = None
        if folder is not None:
            authority = trustme.CA()
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(*names).configure_cert(self._tls)
            self.ca = folder / "authority.pem"
            authority.cert_pem.write_to_path(self.ca)

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}/answer"

    async def start(self) -> None:
        """Listen; again on the same port after ``stop``."""
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> WebServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        return await self.handler(request)  # type: ignore[arg-type]


async def never(request: web.BaseRequest) -> web.StreamResponse:
    """A handler that does not answer."""
    await asyncio.Event().wait()
    raise AssertionError
