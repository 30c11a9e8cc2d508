"""Gives a protocol what TLS has decrypted, without an allocation of 256 KiB for each read.

uvloop reads into a new block of that size for a protocol that has ``data_received``, and into the block of one that has
``get_buffer``. It knows one such block, which all connections of the process share: never what the bytes mean. What
always holds: what was read is copied out of the block in the same call of the event loop, before anything else is read.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast, final

from mesh.transport.stream import Stream

_SIZE: Final = 256 << 10  # bytes; as many as uvloop reads from a socket at once
_BLOCK: Final = memoryview(bytearray(_SIZE))


def attach(transport: asyncio.Transport, protocol: asyncio.Protocol | Stream) -> None:
    """From now on ``protocol`` has what comes over ``transport``, with or without TLS. ``connection_made`` is not
    called."""
    upper = cast(asyncio.Protocol, protocol)
    secured = transport.get_extra_info("ssl_object") is not None
    transport.set_protocol(Plaintext(upper) if secured else upper)


@final
class Plaintext(asyncio.BufferedProtocol):
    """Between uvloop's TLS and ``upper``."""

    __slots__ = ("_received", "_upper")

    def __init__(self, upper: asyncio.Protocol) -> None:
        self._upper = upper
        self._received = upper.data_received

    def get_buffer(self, sizehint: int) -> memoryview:
        return _BLOCK[:sizehint] if 0 < sizehint < _SIZE else _BLOCK

    def buffer_updated(self, nbytes: int) -> None:
        self._received(bytes(_BLOCK[:nbytes]))

    def eof_received(self) -> None:
        self._upper.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._upper.connection_lost(exc)

    def pause_writing(self) -> None:
        self._upper.pause_writing()

    def resume_writing(self) -> None:
        self._upper.resume_writing()
