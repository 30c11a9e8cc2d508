"""Questions to another server over HTTP, each with a deadline and a bounded answer.

It knows HTTP and TLS: never what is asked. What always holds: no question takes longer than ``timeout``, and no answer
has more than ``most`` bytes, also unpacked; a redirection is an error, so a question never goes to another server than
the operator named; a server is asked over TLS, and its certificate checked, unless it is on this machine.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import final

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorError,
    ClientError,
    ClientOSError,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
)
from yarl import URL

from mesh.policy.watched import WatchedFile
from mesh.private import read_given


class NoAnswer(Exception):
    """The server gave no usable answer; the message says why."""


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """``type`` is the media type, without parameters."""

    status: int
    type: str
    body: bytes


def check_url(text: str) -> None:
    """Raises ``ValueError`` unless ``text`` is a URL that may be asked."""
    try:
        url = URL(text)
        host = url.host or ""
    except ValueError as error:
        raise ValueError(f"{text!r:.200} is not a URL: {error}") from None
    if url.scheme not in ("https", "http") or not host:
        raise ValueError(f"{text!r:.200} is not a URL; write it like https://auth.example.com/keys")
    if url.user is not None or url.password is not None:
        raise ValueError("a URL with a user or password would appear in logs; use a header")
    if url.scheme == "http" and not _is_here(host):
        raise ValueError(f"{text!r:.200} must begin with https://: only a server on this machine is asked without TLS")


def trusting(ca: Path) -> ssl.SSLContext:
    """What trusts the authorities in a file. Raises ``OSError``, ``NotPrivate`` if other users can have changed the
    file, and ``ValueError`` if it has no certificates."""
    try:
        return ssl.create_default_context(cadata=read_given(ca).decode())
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{ca} is not a file of certificates in PEM: {error}") from None


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@final
class Web:
    """One URL. ``ca``: a file with the certificates of the authorities to trust, instead of the system's; it is
    watched. ``timeout`` is in seconds; ``parallel``: how many connections to the server may be open."""

    def __init__(self, url: str, ca: Path | None, timeout: float, most: int, parallel: int = 1) -> None:
        """Raises ``ValueError`` for a URL that may not be asked."""
        check_url(url)
        self._url = URL(url)
        self._authorities = None if ca is None else WatchedFile(ca, lambda: trusting(ca), self._trust)
        self._trusting: ssl.SSLContext | None = None
        self._timeout = ClientTimeout(total=timeout)
        self._seconds = timeout
        self._most = most
        self._parallel = parallel
        self._session: ClientSession | None = None

    async def start(self) -> None:
        """Raises ``OSError`` or ``ValueError`` if the file of authorities cannot be used."""
        if self._authorities is None:
            self._trust(await asyncio.to_thread(ssl.create_default_context))
        else:
            await self._authorities.start()
        self._session = ClientSession(
            connector=TCPConnector(limit=self._parallel),
            cookie_jar=DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=self._timeout,
            auto_decompress=False,
        )

    async def stop(self) -> None:
        """Close all connections."""
        if self._authorities is not None:
            await self._authorities.stop()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def fault(self) -> str:
        """Why the file of authorities is not in force as it is, in one sentence; empty if it is."""
        return "" if self._authorities is None else self._authorities.fault

    async def get(self) -> Answer:
        """The answer to GET. Raises ``NoAnswer``."""
        return await self._ask("GET", None, {})

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer to POST of a JSON text. Raises ``NoAnswer``."""
        return await self._ask("POST", body, {**headers, "Content-Type": "application/json"})

    async def _ask(self, method: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        try:
            async with asyncio.timeout(self._seconds):
                try:
                    return await self._once(method, body, headers)
                except ClientConnectorError:
                    raise
                except (ServerDisconnectedError, ClientOSError):
                    # The server closes a connection that was idle at the moment in which it is used again.
                    return await self._once(method, body, headers)
        except TimeoutError:
            raise NoAnswer(f"{self._url} did not answer within {self._seconds:g} s") from None
        except (ClientError, OSError, ValueError) as error:
            raise NoAnswer(f"{self._url} could not be asked: {_why(error)}") from None

    async def _once(self, method: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        session, context = self._session, self._trusting
        if session is None or context is None:
            raise NoAnswer(f"{self._url} is asked no longer")
        async with session.request(
            method, self._url, data=body, headers=headers, allow_redirects=False, ssl=context
        ) as response:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise NoAnswer(f"{self._url} sent a compressed answer, which was not asked for")
            found = bytearray()
            async for portion in response.content.iter_any():
                found += portion
                if len(found) > self._most:
                    raise NoAnswer(f"{self._url} sent more than {self._most} bytes")
            return Answer(response.status, response.content_type, bytes(found))

    def _trust(self, context: ssl.SSLContext) -> None:
        """For connections that are made from now on."""
        self._trusting = context


def _why(error: Exception) -> str:
    """An error in words. The library's own text of a failed connection has the name of an object in it."""
    if isinstance(error, ClientConnectorCertificateError):
        return str(error.certificate_error)
    return str(error.os_error if isinstance(error, ClientConnectorError) else error) or type(error).__name__
