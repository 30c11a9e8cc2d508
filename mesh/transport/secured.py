"""TLS at the end of a connection that accepts: a protocol for the transport below, a transport for what is above.

It moves bytes between OpenSSL, which works in memory here, and the two: it must never know certificates, when a
handshake may start, or what the bytes mean. What always holds:

* what a read of the socket has brought is decrypted and passed on in the same call, so of what came only a record that
  is not whole waits here; what is written is encrypted and given to the transport below in the same call, so that
  transport's buffer, and its limits, are those of the connection;
* OpenSSL gets and gives at most ``PORTION`` bytes at once, because its buffers keep the size that they once had;
* a handshake that fails tells the other end why;
* the end is a close_notify, and nothing is read after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from typing import Final, cast, final

PORTION: Final = 16 << 10  # bytes; no record holds more


@final
class Secured:
    """Has the methods of ``asyncio.Transport`` and ``asyncio.Protocol``, but cannot derive from them: a compiled class
    needs a compiled base. ``session`` is OpenSSL's part. Call ``shake`` until it has returned bytes, then
    ``set_protocol``, and make this the protocol of ``below``. Call ``flush`` a while later: with TLS 1.3 the session's
    ticket waits for the first bytes that are written."""

    __slots__ = (
        "_below", "_closing", "_error", "_held", "_incoming", "_outgoing", "_received", "_through", "_upper", "session",
    )  # fmt: skip

    def __init__(self, below: asyncio.Transport, context: ssl.SSLContext) -> None:
        self._below = below
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._upper: asyncio.Protocol | None = None
        self._received: Callable[[bytes], None] = _discard
        self._held = 0  # bytes that go with the next ones that are written
        self._closing = False  # nothing is written or read any longer
        self._through = False  # the other end has sent its close_notify
        self._error: Exception | None = None

    # Handshake

    def shake(self, data: bytes) -> bytes | None:
        """Go on with the handshake. ``None``: it is not complete; else what came after it, which is for
        ``data_received``. Raises ``ssl.SSLError`` if it has failed."""
        for start in range(0, len(data), PORTION):
            self._incoming.write(data[start : start + PORTION])
            if self._shaken():
                return data[start + PORTION :]
        return None

    def _shaken(self) -> bool:
        try:
            self.session.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except ssl.SSLError:
            self._flush()
            raise
        if self.session.version() == "TLSv1.3":
            self._held = self._outgoing.pending  # the session's ticket, for which the client does not wait
        else:
            self._flush()
        return True

    @property
    def holds_back(self) -> bool:
        """Whether something waits for the next bytes."""
        return self._held > 0 and not self._closing

    def flush(self) -> None:
        """Write what waits for the next bytes."""
        if self.holds_back:
            self._flush()

    # asyncio.Protocol, of the transport below

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            if len(data) <= PORTION:
                plain = self._decrypted(data)
            else:
                plain = b"".join(
                    [self._decrypted(data[start : start + PORTION]) for start in range(0, len(data), PORTION)]
                )
        except ssl.SSLError as error:
            self._fail(error)
            return
        if self._outgoing.pending != self._held:  # OpenSSL has answered something
            self._flush()
        if plain:
            self._received(plain)
        if self._through and not self._closing:
            self.eof_received()
            self.close()

    def eof_received(self) -> None:
        """The other end has half-closed: the transport below closes once what is pending is written."""
        upper = self._upper
        if upper is not None:
            upper.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        upper = self._upper
        self._upper = None
        self._received = _discard  # without a cycle they are freed at once
        self._closing = True
        if upper is not None:
            upper.connection_lost(exc if self._error is None else self._error)

    def pause_writing(self) -> None:
        upper = self._upper
        if upper is not None:
            upper.pause_writing()

    def resume_writing(self) -> None:
        upper = self._upper
        if upper is not None:
            upper.resume_writing()

    def _decrypted(self, data: bytes) -> bytes:
        """Raises ``ssl.SSLError``."""
        incoming, session = self._incoming, self.session
        incoming.write(data)
        parts: list[bytes] = []
        asked = min(incoming.pending, PORTION)
        while asked and not self._through:
            try:
                part = session.read(asked)
            except ssl.SSLWantReadError:  # a record is not whole; expensive, and rare
                break
            parts.append(part)
            self._through = not part
            # Less than asked for: OpenSSL has nothing left that is decrypted.
            asked = PORTION if len(part) == asked else min(incoming.pending, PORTION)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # asyncio.Transport, for what is above

    def set_protocol(self, upper: asyncio.Protocol) -> None:
        """From now on ``upper`` has what comes."""
        self._upper = upper
        self._received = upper.data_received

    def get_protocol(self) -> asyncio.Protocol | None:
        return self._upper

    def write(self, data: bytes | bytearray | memoryview) -> None:
        size = len(data)
        if self._closing or not size:
            return
        session, outgoing = self.session, self._outgoing
        self._held = 0
        try:
            done = session.write(data)
            if done == size:
                self._below.write(outgoing.read())
                return
            records = [outgoing.read()]
            left = memoryview(data)
            while done < size:
                done += session.write(left[done:])
                records.append(outgoing.read())
        except ssl.SSLError as error:
            self._fail(error)
            return
        self._below.writelines(records)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Say that no more will come; what comes is not read."""
        if self._closing:
            return
        self._conclude()
        if not self._below.is_closing():
            self._below.write_eof()

    def close(self) -> None:
        if not self._closing:
            self._conclude()
        self._below.close()

    def abort(self) -> None:
        self._closing = True
        self._below.abort()

    def is_closing(self) -> bool:
        return self._closing or self._below.is_closing()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def is_reading(self) -> bool:
        return self._below.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._below.get_write_buffer_limits()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self.session if name == "ssl_object" else cast(object, self._below.get_extra_info(name, default))

    # Internal

    def _conclude(self) -> None:
        """Send the close_notify."""
        self._closing = True
        with contextlib.suppress(ssl.SSLError):  # it would wait for that of the other end
            self.session.unwrap()
        self._flush()

    def _fail(self, error: Exception) -> None:
        """The other end has broken the protocol of TLS: tell it, and close."""
        self._closing = True
        self._error = error
        self._flush()
        self._below.close()

    def _flush(self) -> None:
        self._held = 0
        data = self._outgoing.read()
        if data:
            self._below.write(data)


def _discard(data: bytes) -> None:
    """What has no protocol reads nothing."""
