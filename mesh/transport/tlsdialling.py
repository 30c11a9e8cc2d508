"""The TLS context with which a node dials another one, made again when its files change.

It knows files: never the other node's name, which the mesh secret proves. What always holds: the other end shows a
certificate that an authority of ``ca`` has signed, and this one shows its own; new files are for new connections; files
that cannot be used leave the old context in force, loudly.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import final

from cryptography.hazmat.primitives.serialization import Encoding

from mesh.transport.certificates import Unusable, read_authorities, read_chain, read_key
from mesh.transport.listen import TlsFiles
from mesh.transport.tlsfiles import Stamp, stamps_of

log = logging.getLogger(__name__)


def dialling_context(files: TlsFiles) -> ssl.SSLContext:
    """Read the files of a node that dials. Takes milliseconds. Raises ``Unusable``; ``NotPrivate``, ``OSError``."""
    (pair,) = files.pairs
    assert files.ca is not None, "the files of a link have authorities"
    chain = read_chain(pair.cert)
    read_key(pair.key, chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    for one in read_authorities(files.ca):
        context.load_verify_locations(cadata=one.public_bytes(Encoding.DER))
    try:
        context.load_cert_chain(pair.cert, pair.key, password="")  # else OpenSSL asks for one
    except ssl.SSLError as error:
        raise Unusable(f"{pair.cert}: OpenSSL does not use it: {error.reason or error}") from None
    return context


@final
class DiallingTls:
    """``fault``: why the present files are not in force; empty if they are."""

    def __init__(self, files: TlsFiles) -> None:
        self.fault = ""
        self._files = files
        self._context: ssl.SSLContext | None = None
        self._stamps: dict[Path, Stamp | None] | None = None
        self._lock = asyncio.Lock()

    async def context(self) -> ssl.SSLContext:
        """The context for a new connection. Raises ``OSError`` if there never was one."""
        async with self._lock:
            stamps = await asyncio.to_thread(stamps_of, self._files)
            if self._context is None or stamps != self._stamps:
                self._stamps = stamps
                await self._read()
            if self._context is None:
                raise Unusable(self.fault)
            return self._context

    async def _read(self) -> None:
        try:
            self._context = await asyncio.to_thread(dialling_context, self._files)
        except OSError as error:
            self.fault = error.strerror or str(error)
            kept = "there is none yet" if self._context is None else "the old ones stay in force"
            log.error("the certificates of the links cannot be used, %s: %s", kept, self.fault)
        else:
            self.fault = ""
