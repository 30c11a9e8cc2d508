"""The HTTP API and the page, as an aiohttp application.

Knows HTTP and a ``VehicleSource``; never knows where the answers come from. What always holds: no request changes
anything (GET and HEAD only); every answer to a well-formed request has the security headers; every error is JSON with
one sentence; only the files named here are served.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from mesh.cluster.node import CONSOLE
from mesh.console.source import NoAnswer, VehicleSource
from mesh.console.status import ConsoleStatus, view
from mesh.telemetry.prometheus import CONTENT_TYPE, exposition
from mesh.topology.units import is_loopback, names_loopback

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SOURCE: Final[web.AppKey[VehicleSource]] = web.AppKey("source")
OWN: Final[web.AppKey[Callable[[], ConsoleStatus]]] = web.AppKey("own")

# Seconds for the answer to one request: longer than the source's own deadline.
ANSWER: Final = 5.0

# Characters. The longest name that fits into a vehicle's key in etcd is far shorter.
_NAME: Final = 512

_READING: Final = frozenset({"GET", "HEAD"})

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_PAGE: Final = Path(__file__).with_name("web")
_FILES: Final = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

_PATHS: Final = ("/", "/api/status", "/api/vehicles/NAME", "/api/targets", "/metrics", "/healthz")


def application(source: VehicleSource, host: str, own: Callable[[], ConsoleStatus]) -> web.Application:
    """The application for a console that listens on ``host``; ``own`` gives its own status. Raises ``OSError`` if the
    page's files are missing."""
    app = web.Application(middlewares=[_guard(host)], client_max_size=1024)
    app[SOURCE] = source
    app[OWN] = own
    for path, (file, kind) in _FILES.items():
        app.router.add_get(path, _file((_PAGE / file).read_bytes(), kind))
    app.router.add_get("/healthz", _health)
    app.router.add_get("/api/status", _status)
    app.router.add_get("/api/targets", _targets)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/api/vehicles/{vehicle}", _vehicle)
    return app


def _guard(host: str) -> Middleware:
    own = host if is_loopback(host) else None

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await _answer(request, handler, own)
        response.headers.update(_HEADERS)
        response.force_close()  # one request for each connection, so that each connection ends within its deadline
        return response

    return guard


async def _answer(request: web.Request, handler: Handler, own: str | None) -> web.StreamResponse:
    """``own``: the host of a console that listens on loopback only, which refuses foreign host names."""
    if request.method not in _READING:
        sentence = f"{request.method} is not allowed: the console is read-only; use GET or HEAD"
        return _error(405, sentence, "GET, HEAD")
    if own is not None and not names_loopback(request.host):
        return _error(421, f"this console answers requests to {own} only, not to {request.host!r}")
    try:
        async with asyncio.timeout(ANSWER):
            return await handler(request)
    except TimeoutError:
        return _error(503, f"no answer within {ANSWER:.0f} s")
    except NoAnswer as error:
        return _error(503, str(error))
    except web.HTTPNotFound:
        return _error(404, f"there is nothing at {request.path!r}: try one of {', '.join(_PATHS)}")
    except web.HTTPException as error:
        return _error(error.status, error.reason)
    except Exception:  # the client gets JSON for this error, too; the log has the details
        log.exception("a request for %s failed", request.path)
        return _error(500, "the console failed on this request; its log has the reason")


def _file(body: bytes, kind: str) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return answer


async def _health(_request: web.Request) -> web.Response:
    return _json({"status": "ok"})


async def _status(request: web.Request) -> web.Response:
    return _answered((await request.app[SOURCE].status()).to_json())


async def _targets(request: web.Request) -> web.Response:
    """Prometheus' HTTP service discovery: every node with metrics, and this console. A node that does not run stays in
    the list, so that Prometheus shows it as down."""
    status = await request.app[SOURCE].status()
    places = [(row.metrics, row.name, row.role) for row in status.nodes if row.metrics]
    places.append((request.host, CONSOLE, CONSOLE))
    secure = {"__scheme__": "https"} if request.secure else {}
    return _json([
        {"targets": [place], "labels": {"mesh": status.mesh, "node": name, "role": role, **secure}}
        for place, name, role in places
    ])  # fmt: skip


async def _metrics(request: web.Request) -> web.Response:
    """The controller's view of the nodes: which are up, which are ready, and the restarts of each."""
    status = await request.app[SOURCE].status()
    labels = {"mesh": status.mesh, "node": CONSOLE}
    body = await asyncio.to_thread(exposition, view(request.app[OWN](), status), labels)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})


async def _vehicle(request: web.Request) -> web.Response:
    name = request.match_info["vehicle"]
    if len(name) > _NAME:
        return _error(400, f"a vehicle's name has at most {_NAME} characters, not {len(name)}")
    try:
        record = await request.app[SOURCE].vehicle(name)
    except ValueError as error:
        return _error(400, str(error))
    if record is None:
        return _error(404, f"{name} has no edge yet: it gets one when it first connects")
    return _json(record)


def _json(value: object, status: int = 200) -> web.Response:
    return _answered(json.dumps(value, default=str), status)


def _answered(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="application/json")


def _error(status: int, sentence: str, allow: str = "") -> web.Response:
    response = _json({"error": sentence}, status)
    if allow:
        response.headers["Allow"] = allow
    return response
