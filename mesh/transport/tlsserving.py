"""TLS for a server that the event loop accepts for: clients show a certificate, and changed files are for new ones.

It knows one listener's files: never what the server answers. What always holds: the context that the server has got
takes, in each handshake, the certificate and the authorities of the present files.
"""

from __future__ import annotations

import ssl
from typing import final

from mesh.transport.accept import Figures
from mesh.transport.listen import TlsFiles
from mesh.transport.tlsfiles import WatchedTls


@final
class ServingTls:
    """``name`` is the server's, for the log. Call ``start`` first."""

    def __init__(self, name: str, files: TlsFiles) -> None:
        self._watched = WatchedTls(name, files, "http/1.1", lambda: (), Figures())

    async def start(self) -> ssl.SSLContext:
        """The context for the server. Raises ``Unusable``; ``NotPrivate``, ``OSError``."""
        await self._watched.read()
        first = self._watched.context
        first.sni_callback = self._choose
        self._watched.start()
        return first

    def stop(self) -> None:
        """Watch the files no longer."""
        self._watched.stop()

    def detail(self) -> str:
        """What is wrong with the certificate, or will be soon, in one sentence; else empty."""
        return self._watched.detail()

    def _choose(self, session: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        session.context = self._watched.context
