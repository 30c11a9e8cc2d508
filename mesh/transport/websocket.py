"""A WebSocket as a transport: what is above it reads and writes a byte stream, and does not know of frames.

``Opening`` has the connection until the client's request is answered (``upgrade``); ``WebSocket`` has it then, and is
the stream's transport. The frames are wsproto's. It knows frames and the transport below: never MQTT's packets. What
always holds:

* the data of binary frames is one stream of bytes: a packet may span frames and a frame hold many [MQTT-6.0.0-2]; data
  goes on as it comes, so no frame is buffered;
* a frame with text [MQTT-6.0.0-1], one that is not masked, or larger than the largest packet, and what RFC 6455 forbids
  end the connection: the stream is told why, then the other end is, with the code of the RFC;
* a ping is answered; of those that came together the last one (RFC 6455, section 5.5.3);
* in one turn at most ``FRAMES`` frames are handled of all connections of a listener together: a frame may be empty, so
  a few bytes can cost much time. A connection with more waits for its turn (``Shares``); the transport below is not
  read meanwhile, and not while the stream reads nothing;
* the end is a closing handshake: a Close frame each, then the transport below closes. Its deadline is the stream's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final, cast, final

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, ParseFailed, RsvBits

from mesh.broker.peer import Peer
from mesh.transport.accept import Opened, Upper
from mesh.transport.listen import Listen
from mesh.transport.stream import Stream
from mesh.transport.upgrade import BadRequest, Rules, Upgrade
from mesh.wire.limits import PacketLimits
from mesh.wire.reasons import MALFORMED_PACKET, PACKET_TOO_LARGE, PROTOCOL_ERROR

FRAMES: Final = 256  # some 4 ms
PORTION: Final = 32  # frames of one connection, then others have their turn
LEAVE: Final = 2.0  # seconds that a client has to read why its request is refused, and to close

_PLAIN: Final = RsvBits(False, False, False)
_REASONS: Final = {
    CloseReason.UNSUPPORTED_DATA: (MALFORMED_PACKET, "a frame holds text [MQTT-6.0.0-1]"),
    CloseReason.MESSAGE_TOO_BIG: (PACKET_TOO_LARGE, "a frame is larger than the largest packet"),
}

Close = tuple[int, str]
"""The code and the text of a Close frame."""


@final
class Bounds(Extension):
    """Looks at each frame's header: it must hold binary data, and not more than the largest packet. The client does not
    know of this extension. One serves all connections of a listener."""

    name = "bounds"

    def __init__(self, limits: PacketLimits) -> None:
        self._limits = limits

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        if opcode is Opcode.TEXT:
            return CloseReason.UNSUPPORTED_DATA
        if payload_length > self._limits.max_packet_size:
            return CloseReason.MESSAGE_TOO_BIG
        return _PLAIN


@final
class Shares:
    """How many frames each connection may handle. Half of ``FRAMES`` is for those that wait, which take turns, so that
    the frames of the others need not wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left = FRAMES
        self._waiting: deque[WebSocket] = deque()
        self._scheduled = False

    def portion(self) -> int:
        """How many frames a connection may handle now; afterwards call ``spend``."""
        self._schedule()
        return max(0, min(PORTION, self._left))

    def spend(self, count: int) -> None:
        """A connection has handled so many."""
        self._left -= count

    def wait(self, socket: WebSocket) -> None:
        """Call ``go_on`` in a later turn."""
        self._waiting.append(socket)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._left = FRAMES // 2
        try:
            while self._waiting and self._left > 0:
                self._waiting.popleft().go_on()
        finally:
            self._left += FRAMES // 2
            if self._waiting:
                self._schedule()


@final
class WebSockets(Upper):
    """What a listener's connections need: the rules for requests, and the bounds of frames."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listen: Listen, limits: PacketLimits) -> None:
        self._loop = loop
        self._rules = Rules(listen)
        self._bounds = Bounds(limits)
        self._shares = Shares(loop)

    def begin(self, transport: asyncio.Transport, stream: Stream, opened: Opened) -> asyncio.Protocol:
        return Opening(self._loop, transport, Upgrade(self._rules), self._bounds, self._shares, stream, opened)


@final
class Opening(asyncio.Protocol):
    """The request. ``opened`` is called when the stream has its transport, or when the connection has ended, at the
    latest ``LEAVE`` seconds after a wrong request."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        upgrade: Upgrade,
        bounds: Bounds,
        shares: Shares,
        stream: Stream,
        opened: Opened,
    ) -> None:
        self._opened = opened
        self._loop = loop
        self._transport = transport
        self._upgrade = upgrade
        self._bounds = bounds
        self._shares = shares
        self._stream = stream
        self._refusal = "it closed the connection before its WebSocket was open"
        self._timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        if self._timer is not None:
            return  # a reset, which unread bytes cause, could overtake the answer
        try:
            answer = self._upgrade.feed(data)
        except BadRequest as bad:
            self._refuse(bad)
            return
        if answer:
            self._transport.write(answer)
            self._hand_over()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._opened(self._refusal)

    def _hand_over(self) -> None:
        stream, known = self._stream, self._stream.peer
        stream.peer = Peer(known.address, known.port, known.listener, known.tls, self._upgrade.headers)
        socket = WebSocket(self._shares, self._transport, self._bounds, stream)
        self._transport.set_protocol(socket)
        self._opened("")
        stream.connection_made(socket)

    def _refuse(self, bad: BadRequest) -> None:
        self._refusal = f"its HTTP request is answered with {bad.status.value}: {bad}"
        self._transport.write(bad.answer)
        self._timer = self._loop.call_later(LEAVE, self._transport.abort)
        _end(self._transport)


@final
class WebSocket(asyncio.Transport, asyncio.Protocol):
    """A transport for ``stream``, and the protocol of the transport below."""

    __slots__ = (
        "_below", "_closing", "_code", "_error", "_frames", "_lost", "_more", "_paused", "_shares", "_stream",
        "_through", "_told", "_waits",
    )  # fmt: skip

    def __init__(self, shares: Shares, below: asyncio.Transport, bounds: Bounds, stream: Stream) -> None:
        super().__init__()
        self._shares = shares
        self._below = below
        self._stream = stream
        self._frames = FrameProtocol(client=False, extensions=[bounds])
        self._paused = False  # by the stream
        self._more = False  # frames wait for a later turn
        self._waits = False  # for ``go_on``
        self._lost = False  # the transport below is gone
        self._error: Exception | None = None  # why
        self._told = False  # the stream knows that
        self._closing = False  # a Close frame was sent: none follows
        self._through = False  # a Close frame has come, or a wrong one: what follows is not read
        self._code = CloseReason.NORMAL_CLOSURE

    # asyncio.Protocol, of the transport below

    def data_received(self, data: bytes) -> None:
        if self._through:
            return
        self._frames.receive_bytes(data)
        if not self._more:
            self._take()

    def eof_received(self) -> None:
        """The other end has half-closed: the transport below closes once what is pending is written."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end is gone: what it sent before still counts, in its turn."""
        self._closing = True
        self._lost = True
        self._error = exc
        if self._more and not self._through:
            self._wait()
        else:
            self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._stream.connection_lost(self._error)

    def pause_writing(self) -> None:
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        self._stream.resume_writing()

    def _take(self) -> None:
        """Handle as many frames as is this connection's share; the others wait for a later turn."""
        most = self._shares.portion()
        if most == 0:
            self._wait_for_more(True)
            return
        data: list[bytes] = []
        ping: bytes | None = None
        closed: Close | None = None
        failed: ParseFailed | None = None
        count = 0
        try:
            for frame in self._frames.received_frames():
                payload = frame.payload
                if isinstance(payload, tuple):
                    closed = payload
                elif frame.opcode is Opcode.PING:
                    ping = cast(bytes, payload)
                elif frame.opcode is not Opcode.PONG:
                    data.append(cast(bytes, payload))
                count += 1
                if count == most or closed is not None:
                    break
        except ParseFailed as error:
            failed = error
        self._shares.spend(count + (failed is not None))
        self._wait_for_more(count == most and closed is None)
        if ping is not None and not self._closing:
            self._below.write(self._frames.pong(ping))
        if data:
            self._stream.data_received(data[0] if len(data) == 1 else b"".join(data))
        if failed is not None:
            self._fail(failed)
        elif closed is not None:
            self._closed(closed)
        if self._lost and not self._more:
            self._tell()

    def _wait_for_more(self, more: bool) -> None:
        before, self._more = self._more, more
        if more:
            self._hold()
            self._wait()
        elif before:
            self._release()

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self._shares.wait(self)

    def go_on(self) -> None:
        """It is this connection's turn."""
        self._waits = False
        if self._more and not self._through and (self._lost or not self._paused):
            try:
                self._take()
            except BaseException:
                self.abort()  # as the transport below does when ``data_received`` fails
                raise

    def _fail(self, failed: ParseFailed) -> None:
        """The other end broke the protocol of WebSocket."""
        self._through = True
        self._code = failed.code
        reason, why = _REASONS.get(failed.code, (PROTOCOL_ERROR, str(failed)))
        self._stream.expel(reason, f"WebSocket: {why}")

    def _closed(self, closed: Close) -> None:
        """The other end's Close frame has come: answer it, unless it is an answer, and close."""
        self._through = True
        if not self._closing:
            self._closing = True
            self._below.write(self._frames.close(closed[0]))
        self._below.close()

    # asyncio.Transport, for the stream

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        if not self._closing:
            self._below.write(self._frames.send_data(cast(bytes, data)))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[int]]) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Say that no more will come. The other end answers that, and then the connection closes; it closes at once if
        the other end has sent a wrong frame, as no answer would be read."""
        if not self._closing:
            self._closing = True
            self._below.write(self._frames.close(self._code))
            if self._through:
                _end(self._below)

    def close(self) -> None:
        self.write_eof()
        self._below.close()

    def abort(self) -> None:
        self._closing = True
        self._through = True
        self._below.abort()
        if self._lost:
            self._tell()

    def is_closing(self) -> bool:
        return self._below.is_closing()

    def pause_reading(self) -> None:
        self._paused = True
        self._hold()

    def resume_reading(self) -> None:
        self._paused = False
        if self._more:
            self._wait()
        else:
            self._release()

    def is_reading(self) -> bool:
        return not self._paused

    def _hold(self) -> None:
        if not self._below.is_closing():
            self._below.pause_reading()

    def _release(self) -> None:
        if not self._paused and not self._below.is_closing():
            self._below.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._below.get_write_buffer_limits()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._below.get_extra_info(name, default)


def _end(transport: asyncio.Transport) -> None:
    """Write what is pending, and say that no more will come."""
    if transport.can_write_eof():
        transport.write_eof()
    else:
        transport.close()
