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

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from yarl import URL


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


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@final
class Web:
    """One URL. ``ca``: a file with the certificates of the authorities to trust, instead of the system's. ``timeout``
    is in seconds; ``parallel``: how many connections to the server may be open."""

    def __init__(self, url: str, ca: Path | None, timeout: float, most: int, parallel: int = 1) -> None:
        """Raises ``ValueError`` for a URL that may not be asked."""
        check_url(url)
        self._url = URL(url)
        self._ca = ca
        self._timeout = ClientTimeout(total=timeout)
        self._seconds = timeout
        self._most = most
        self._parallel = parallel
        self._session: ClientSession | None = None

    async def start(self) -> None:
        """Raises ``OSError`` or ``ValueError`` if the file of authorities cannot be used."""
        try:
            context = await asyncio.to_thread(ssl.create_default_context, cafile=self._ca)
        except ssl.SSLError as error:
            raise ValueError(f"{self._ca} is not a file of certificates in PEM: {error}") from None
        except OSError as error:
            raise OSError(error.errno, f"{self._ca} cannot be read: {error.strerror}") from None
        self._session = ClientSession(
            connector=TCPConnector(ssl=context, limit=self._parallel),
            cookie_jar=DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            timeout=self._timeout,
            auto_decompress=False,
        )

    async def stop(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self) -> Answer:
        """The answer to GET. Raises ``NoAnswer``."""
        return await self._ask("GET", None, {})

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer to POST of a JSON text. Raises ``NoAnswer``."""
        return await self._ask("POST", body, {**headers, "Content-Type": "application/json"})

    async def _ask(self, method: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        session = self._session
        if session is None:
            raise NoAnswer(f"{self._url} is asked no longer")
        try:
            async with session.request(
                method, self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    raise NoAnswer(f"{self._url} sent a compressed answer, which was not asked for")
                found = bytearray()
                async for portion in response.content.iter_any():
                    found += portion
                    if len(found) > self._most:
                        raise NoAnswer(f"{self._url} sent more than {self._most} bytes")
                return Answer(response.status, response.content_type, bytes(found))
        except TimeoutError:
            raise NoAnswer(f"{self._url} did not answer within {self._seconds:g} s") from None
        except (ClientError, OSError, ValueError) as error:
            raise NoAnswer(f"{self._url} could not be asked: {error}") from None
