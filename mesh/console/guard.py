"""What holds for every request: its deadline, the headers of its answer, the form of its errors.

Knows HTTP and nothing of the mesh. What always holds: an answer has left within ``SECONDS`` or the connection is gone;
no answer may be framed, kept by a cache, read by another site or load anything from elsewhere; every error is JSON with
one sentence in ``error``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from mesh.topology.units import Address, is_loopback

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# For a whole answer, until the last byte is with the kernel. Longer than the slowest lookup; a client that does not
# read must not hold one of the few connections.
SECONDS: Final = 10.0

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "mesh",
}


class Refusal(Exception):
    """An answer other than success: the HTTP status, and the JSON object with ``error`` in it."""

    def __init__(self, status: int, error: str, **more: object) -> None:
        super().__init__(error)
        self.status = status
        self.body: dict[str, object] = {**more, "error": error}


async def put_headers(request: web.Request, response: web.StreamResponse) -> None:
    """To be called before any answer leaves."""
    response.headers.update(HEADERS)


def guard(address: Address) -> Middleware:
    """The middleware around all handlers of a console that listens at ``address``."""

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with asyncio.timeout(SECONDS):
                response = await _answer(request, handler, address)
                await response.prepare(request)
                await response.write_eof()
                return response
        except TimeoutError:
            log.warning("%s did not take its answer within %g s", request.remote, SECONDS)
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the client does not read") from None

    return around


async def _answer(request: web.Request, handler: Handler, address: Address) -> web.StreamResponse:
    try:
        _check_host(request, address)
        return await handler(request)
    except Refusal as refusal:
        return web.json_response(refusal.body, status=refusal.status)
    except web.HTTPMethodNotAllowed as error:
        text = f"{request.method} is not possible: the console only reads, with GET or HEAD"
        return web.json_response({"error": text}, status=error.status, headers={"Allow": "GET, HEAD"})
    except web.HTTPNotFound as error:
        text = "there is nothing here but /, /healthz, /api/status and /api/vehicles/{vehicle}"
        return web.json_response({"error": text}, status=error.status)
    except web.HTTPException as error:
        return web.json_response({"error": error.reason}, status=error.status)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return web.json_response({"error": "the console failed; its log says why"}, status=500)


def _check_host(request: web.Request, address: Address) -> None:
    """Refuse other sites' names for this machine: with such a name a foreign page in a browser here could read what is
    meant for this machine only (DNS rebinding). Where the console can be reached from elsewhere anyway, any name will
    do."""
    if not address.loopback:
        return
    try:
        name = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        name = ""
    if not (is_loopback(name) or name == address.host.lower()):
        raise Refusal(421, f"the console listens for this machine only: ask for http://{address}/")
