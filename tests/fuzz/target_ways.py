"""What a connection sends before MQTT, and around it: headers of the PROXY protocol, requests for a WebSocket, frames.

Each case is a valid sequence with some mutations. It is fed whole and in random pieces; both must give the same, and
what a second reader, written here in the simplest way, makes of it. The same seed makes the same cases.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from struct import unpack
from typing import Any, Final, NamedTuple, cast

from wsproto.frame_protocol import CloseReason

from mesh.transport.listen import HeaderRule, Listen
from mesh.transport.stream import HOLD_BROKER, Stream, StreamGroup
from mesh.transport.upgrade import LARGEST, MOST, BadRequest, Rules, Upgrade
from mesh.transport.websocket import FRAMES, Bounds, Shares, WebSocket
from mesh.transport.wheel import Wheel
from mesh.wire.limits import PacketLimits
from mesh.wire.proxy import LONGEST, ProxyError, ProxyReader
from tests.fuzz.watch import Breach, insist
from tests.support import proxyheaders as proxy
from tests.support.websockets import BINARY, CLOSE, MORE, PING, PONG, TEXT, frame, masked, request

ROUND: Final = 1000  # cases
OPEN: Final = "open"
FAILED: Final = "failed"
CLOSED: Final = "closed"

# The PROXY protocol


def proxied(dice: Random) -> str:
    """One header, with bytes after it; what became of it."""
    data = mutated(dice, _header(dice), 0.6)
    whole, one = ProxyReader(), ProxyReader()
    first = _read(whole, [data])
    insist(first == _read(one, list(pieces(dice, data))), "a header is read otherwise in pieces")
    taken, error = first
    if whole.header is None:
        insist(bool(error) or taken == len(data) <= LONGEST, "a header is neither complete nor wrong nor short")
        return "wrong header" if error else "short header"
    head = data[:taken]
    if data.startswith(b"PROXY "):
        insist(head.endswith(b"\r\n") and head.count(b"\n") == 1 and taken <= 107, "a line has another end")
        insist(whole.header.tls is None, "version 1 knows TLS")
    else:
        insist(head.startswith(proxy.SIGNATURE) and taken == 16 + unpack("!H", head[14:16])[0], "another length")
    tls = whole.header.tls
    insist(tls is None or (tls.common_name + tls.version + tls.cipher).isprintable() or not tls, "control characters")
    again = ProxyReader()
    insist(again.feed(head) == taken and again.header is not None, "a header needs what follows it")
    return "header"


def _read(reader: ProxyReader, data: list[bytes]) -> tuple[int, str]:
    taken = 0
    for piece in data:
        try:
            taken += reader.feed(piece)
        except ProxyError as error:
            return 0, str(error)
        if reader.header is not None:
            break
    return taken, ""


def _header(dice: Random) -> bytes:
    host, port = f"192.0.2.{dice.randrange(256)}", dice.choice((0, 1, 1883, 65_535, dice.randrange(65_536)))
    what = dice.randrange(8)
    if what == 0:
        return f"PROXY TCP4 {host} 198.51.100.1 {port} 1883\r\n".encode()
    if what == 1:
        return f"PROXY TCP6 2001:db8::{dice.randrange(65_536):x} ::ffff:{host} {port} 1883\r\n".encode()
    if what == 2:
        return b"PROXY UNKNOWN" + dice.choice((b"", b" x", b" " + b"f" * dice.randrange(95))) + b"\r\n"
    transport, addresses = dice.choice(
        ((proxy.TCP4, 12), (proxy.TCP6, 36), (proxy.UNIX, 216), (proxy.UNKNOWN, 0), (proxy.UDP4, 12))
    )
    rest = dice.randbytes(addresses) + b"".join(_extension(dice) for _ in range(dice.randrange(4)))
    make = proxy.with_checksum if dice.random() < 0.4 else proxy.block
    return make(dice.choice((proxy.PROXY, proxy.PROXY, proxy.LOCAL)), transport, rest)


_TEXTS: Final = (b"VIN-7", b"", b"a\0b", b"\xff", b"x" * 200)


def _extension(dice: Random) -> bytes:
    if dice.random() < 0.5:
        return proxy.extension(dice.randrange(256), dice.randbytes(dice.choice((0, 1, 4, 5, 40, 300))))
    parts = [
        proxy.extension(dice.choice((0x21, 0x22, 0x23, 0x25)), dice.choice(_TEXTS))
        for _ in range(dice.randrange(4))
    ]
    return proxy.tls(b"", *parts, client=dice.randrange(8), verify=dice.choice((0, 0, 1)))


# The request

_LISTEN: Final = Listen(
    "ws", "127.0.0.1", 0, "/mqtt", origins=("https://a.example",), headers=(HeaderRule("x-fleet", "blue"),)
)
_RULES: Final = Rules(_LISTEN)
_MORE: Final = (
    "Origin: https://a.example\r\n", "X-Fleet: blue\r\n", "X-Fleet: red\r\n", "Host: b\r\n", "Content-Length: 0\r\n",
    "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Transfer-Encoding:\tidentity\r\n", " folded\r\n",
    "\tOrigin: https://a.example\r\n", "X:\r\n", "Upgrade: websocket\r\n", "Connection: keep-alive\r\n",
    "Sec-WebSocket-Protocol: mqtt\r\n", "Sec-WebSocket-Extensions: permessage-deflate\r\n", "\n", "\r", "\r\n",
    "Cookie: a=b; c=d\r\n", "Expect: 100-continue\r\n", "X-A : 1\r\n", "x" * 300 + "\r\n",
)  # fmt: skip
_ONCE: Final = (b"host", b"origin", b"x-fleet", b"upgrade", b"sec-websocket-key", b"sec-websocket-version")
_SPICE: Final = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"\x7f", b"\xff", b"HTTP/1.1", b"GET ", b"\r\n\r\n", b"\x0b",
    b"\r\n ", b";", b"%0d%0a", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x82\x80", b"\x10\x0e\x00\x04MQTT",
)  # fmt: skip


def requested(dice: Random) -> str:
    """One request, mostly of one that may connect; its answer."""
    good = dice.random() < 0.9
    lines = ["Origin: https://a.example\r\n", "X-Fleet: blue\r\n"] if good else []
    for _ in range(dice.choice((0, 0, 0, 1, 1, 2, 4, 70))):
        lines.insert(dice.randrange(len(lines) + 1), dice.choice(_MORE))
    other: dict[str, str | None] = {}
    if dice.random() < 0.2:
        name = dice.choice(("host", "upgrade", "connection", "sec_websocket_key", "sec_websocket_protocol"))
        other[name] = dice.choice((None, "", "mqtt", "keep-alive, Upgrade", "websocket", "a, b", "dGhlIHNhbXBsZQ=="))
    path = dice.choice(("/mqtt",) * 9 + ("/mqtt?a=/", "/", "*", "http://a/mqtt", "/mqtt#x", "/mqtt/../mqtt"))
    data = mutated(dice, request(path, dice.choice(("GET",) * 9 + ("POST", "get")), more="".join(lines), **other), 0.5)
    whole = _answer([data])
    if not data.partition(b"\r\n\r\n")[2]:
        insist(whole == _answer(list(pieces(dice, data))), "a request is answered otherwise in pieces")
    if whole == 101:
        _let_in(data)
    return f"request {whole or 'short'}"


def _answer(data: list[bytes]) -> int:
    upgrade = Upgrade(_RULES)
    for piece in data:
        try:
            answer = upgrade.feed(piece)
        except BadRequest as bad:
            insist(bad.answer.endswith(b"\n") and b"\r\nContent-Length: " in bad.answer, "an answer has another form")
            return int(bad.status)
        if answer:
            return 101
    insist(sum(map(len, data)) <= LARGEST, "a request that is too long is waited for")
    return 0


def _let_in(data: bytes) -> None:
    """Nothing in the request can be read differently by another program."""
    insist(data.endswith(b"\r\n\r\n") and data.count(b"\r\n\r\n") == 1, "bytes follow the request")
    insist(len(data) <= LARGEST, "the request is too long")
    first, *lines = data[:-4].split(b"\r\n")
    insist(first.startswith((b"GET /mqtt HTTP/1.1", b"GET /mqtt?")) and first.count(b" ") == 2, f"line {first!r}")
    insist(len(lines) <= MOST, "too many headers")
    names = [line.partition(b":")[0].lower() for line in lines]
    for line in lines:
        insist(b":" in line and line[:1] not in b" \t" and b" " not in line.partition(b":")[0], f"header {line!r}")
        insist(all((byte >= 32 and byte != 127) or byte == 9 for byte in line), f"a control character in {line!r}")
    for name in _ONCE:
        insist(names.count(name) == 1, f"{name!r} stands there {names.count(name)} times")
    insist(b"transfer-encoding" not in names and names.count(b"content-length") <= 1, "the request has a body")
    values = {name: line.partition(b":")[2].strip() for name, line in zip(names, lines, strict=True)}
    insist(values[b"origin"].lower() == b"https://a.example", "the origin is not allowed")
    insist(values[b"x-fleet"] == b"blue", "a header has another value")


# Frames

MOST_OF_A_FRAME: Final = 600  # bytes; the largest packet of the cases
_BOUNDS: Final = Bounds(PacketLimits(max_packet_size=MOST_OF_A_FRAME))
_KINDS: Final = (BINARY, BINARY, BINARY, MORE, MORE, PING, PONG, CLOSE, TEXT, 3, 11)
_SIZES: Final = (0, 0, 1, 2, 5, 124, 125, 126, 127, 300, MOST_OF_A_FRAME, MOST_OF_A_FRAME + 1, 70_000)


class Outcome(NamedTuple):
    """What the stream got; then the connection is open, has failed, or was closed by the client, with a code."""

    data: bytes
    end: str
    code: int


def framed(dice: Random) -> str:
    """Frames of one connection, which the stream holds now and then; how it ended."""
    data = b"".join(_many(dice) if dice.random() < 0.003 else _frames(dice))
    data = mutated(dice, data, 0.35)
    expected = Simple(data).outcome()
    for parts, holds in (([data], 0.0), (list(pieces(dice, data)), 0.3)):
        found = Connection(dice, holds).run(parts)
        insist(found == expected, f"{_short(found)} where {_short(expected)} was due")
    return f"frames {expected.end}"


def _short(outcome: Outcome) -> str:
    return f"{len(outcome.data)} bytes, {outcome.end} with {outcome.code}"


def _many(dice: Random) -> Iterator[bytes]:
    """More frames than are handled in one turn."""
    mask = dice.randbytes(4)
    for number in range(dice.randrange(FRAMES - 2, 3 * FRAMES)):
        yield frame(BINARY, bytes((number & 0xFF,)) * dice.randrange(3), mask=mask)


def _frames(dice: Random) -> Iterator[bytes]:
    begun = False
    for _ in range(dice.choice((1, 2, 3, 5, 10, 30))):
        if dice.random() < 0.06:
            kind, last = dice.choice(_KINDS), dice.random() < 0.8
        else:
            kind, last = (MORE if begun else BINARY), dice.random() < 0.6
            begun = not last
            if dice.random() < 0.2:
                yield frame(dice.choice((PING, PONG)), dice.randbytes(dice.choice((0, 3, 125))))
        payload = dice.randbytes(dice.choice(_SIZES[:10] if dice.random() < 0.95 else _SIZES))
        if kind == CLOSE and dice.random() < 0.7:
            payload = dice.choice((b"", b"\x03", b"\x03\xe9bye", b"\x03\xed", b"\x0f\xa0", b"\x03\xe8\xff"))
        mask = b"" if dice.random() < 0.01 else dice.randbytes(4)
        yield frame(kind, payload, last, mask, dice.choice((0,) * 80 + (1, 4, 7)))
    if dice.random() < 0.3:
        yield frame(CLOSE, dice.choice((b"", b"\x03\xe8", b"\x0f\xa0later")))


class Simple:
    """Reads frames in the simplest way: all bytes are there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._begun = False
        self._got: list[bytes] = []

    def outcome(self) -> Outcome:
        try:
            code = self._read()
        except IndexError:  # a part of a header
            return Outcome(b"".join(self._got), OPEN, 0)
        except Wrong as wrong:
            return Outcome(b"".join(self._got), FAILED, wrong.code)
        return Outcome(b"".join(self._got), OPEN if code < 0 else CLOSED, max(code, 0))

    def _read(self) -> int:
        """The code of the Close frame; -1 without one, 0 for one without a code."""
        while self._at < len(self._data):
            kind, last, size, mask = self._head()
            payload = self._data[self._at : self._at + size]
            self._at += size
            whole = len(payload) == size
            payload = masked(payload, mask)
            if kind >= CLOSE:
                if whole and kind == CLOSE:
                    return _code(payload)
            elif payload or size == 0:
                if self._begun == (kind == BINARY):
                    raise Wrong(1002)
                self._got.append(payload)
                self._begun = not (last and whole)
        return -1

    def _head(self) -> tuple[int, bool, int, bytes]:
        first, second = self._next(2)
        kind, last = first & 0x0F, bool(first & 0x80)
        if kind not in (MORE, TEXT, BINARY, CLOSE, PING, PONG) or (kind >= CLOSE and not last):
            raise Wrong(1002)
        size = second & 0x7F
        if kind >= CLOSE and size > 125:
            raise Wrong(1002)
        if size >= 126:
            least, count = (126, 2) if size == 126 else (1 << 16, 8)
            size = int.from_bytes(self._next(count), "big")
            if not least <= size < 1 << 63:
                raise Wrong(1002)
        if kind == TEXT:
            raise Wrong(1003)
        if size > MOST_OF_A_FRAME:
            raise Wrong(1009)
        if first & 0x70 or not second & 0x80:
            raise Wrong(1002)
        return kind, last, size, self._next(4)

    def _next(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise IndexError
        self._at += count
        return self._data[self._at - count : self._at]


class Wrong(Exception):
    """The frames are wrong."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _code(payload: bytes) -> int:
    if not payload:
        return 0
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (1000 <= code <= 1003 or 1007 <= code <= 1013 or 3000 <= code <= 4999):
        raise Wrong(1002)
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise Wrong(1007) from None
    return code


class Loop:
    """Runs callbacks when it is told to."""

    def __init__(self) -> None:
        self.due: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.due.append(callback)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """No deadline passes."""
        return cast(asyncio.TimerHandle, _Timer())

    def turn(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


_WHEEL: Final = Wheel(cast(asyncio.AbstractEventLoop, Loop()))


class _Timer:
    def cancel(self) -> None:
        """It never runs."""


class Below:
    """The transport below. ``sent`` is what the client gets."""

    def __init__(self) -> None:
        self.sent = b""
        self.reading = True
        self.closed = False

    def write(self, data: bytes) -> None:
        insist(not self.closed, "something is written after the end")
        self.sent += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """No more comes."""

    def close(self) -> None:
        self.closed = True

    abort = close

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """There are none."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default


class Receiver(Stream):
    """Keeps what it gets, and holds the connection now and then."""

    def __init__(self, group: StreamGroup, dice: Random, holds: float) -> None:
        super().__init__(group)
        self.got = b""
        self.expelled = 0
        self._dice = dice
        self._holds = holds

    def received(self, data: bytes) -> None:
        insist(not self.expelled and not self.holds, "data came after the end, or while the stream was held")
        self.got += data
        if self._dice.random() < self._holds:
            self.hold(HOLD_BROKER)

    def expel(self, reason: int, why: str) -> None:
        self.expelled += 1
        super().expel(reason, why)


class Connection:
    """One WebSocket between a transport and a stream that are made up."""

    def __init__(self, dice: Random, holds: float) -> None:
        self.loop = Loop()
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.stream = Receiver(StreamGroup(loop, _WHEEL), dice, holds)
        self.below = Below()
        self.socket = WebSocket(Shares(loop), cast(asyncio.Transport, self.below), _BOUNDS, self.stream)
        self.stream.connection_made(self.socket)

    def run(self, parts: list[bytes]) -> Outcome:
        """Feed the parts, as a transport does that is paused now and then."""
        for part in parts:
            while not self.below.reading and not self.below.closed:
                self.stream.release(HOLD_BROKER)
                self.loop.turn()
            if self.below.closed:
                break
            self.socket.data_received(part)
            buffered: Any = self.socket._frames._frame_decoder.buffer
            ended = self.socket._through or not self.below.reading
            insist(ended or len(buffered) <= 125 + 14, f"{len(buffered)} bytes of frames are kept")
        while self.loop.due or self.stream.holds:
            self.stream.release(HOLD_BROKER)
            self.loop.turn()
        return self._outcome()

    def _outcome(self) -> Outcome:
        got, expelled = self.stream.got, self.stream.expelled
        insist(expelled <= 1, "the stream was told twice")
        last = _sent(self.below.sent)
        if expelled:
            insist(last >= 1000, "the client was not told")
            return Outcome(got, FAILED, last)
        if self.below.closed:
            return Outcome(got, CLOSED, max(last, 0))
        insist(last < 0, "the client was told of an end that is none")
        return Outcome(got, OPEN, 0)


def _sent(data: bytes) -> int:
    """Check what the client gets: pongs, then at most one Close frame. Its code; 0 without one, -1 without a frame."""
    at, code = 0, -1
    while at < len(data):
        insist(code < 0, "something follows the Close frame")
        kind, size = data[at], data[at + 1]
        insist(kind in (0x80 | PONG, 0x80 | CLOSE) and size <= 125, f"a frame {data[at : at + 4]!r} was sent")
        if kind == 0x80 | CLOSE:
            code = int.from_bytes(data[at + 2 : at + 4], "big") if size else 0
            insist(size == 0 or code in set(CloseReason) or code >= 3000, f"the code {code} was sent")
        at += 2 + size
    insist(at == len(data), "a part of a frame was sent")
    return code


# Both


def pieces(dice: Random, data: bytes) -> Iterator[bytes]:
    """The same bytes in random pieces, at most some 100."""
    size = max(dice.choice((1, 2, 7, 40, 300)), len(data) // 50)
    at = 0
    while at < len(data):
        step = int(dice.random() * size) + 1
        yield data[at : at + step]
        at += step


def mutated(dice: Random, data: bytes, share: float) -> bytes:
    """Bytes changed, put in, taken out, doubled or cut off, in this share of the cases."""
    if dice.random() >= share:
        return data
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        at, what = dice.randrange(len(data) + 1), dice.randrange(6)
        if what == 0:
            data = data[:at] + dice.randbytes(1) + data[at + 1 :]
        elif what == 1:
            data = data[:at] + dice.choice(_SPICE) + data[at:]
        elif what == 2:
            data = data[:at] + data[at + dice.randrange(1, 8) :]
        elif what == 3:
            data = data[:at] + data[at : at + dice.randrange(1, 60)] + data[at:]
        elif what == 4 and data[at : at + 1]:
            data = data[:at] + bytes((data[at] ^ 1 << dice.randrange(8),)) + data[at + 1 :]
        else:
            data = data[:at]
    return data or b"\0"  # a transport reads at least one byte


TARGETS: Final = (proxied, requested, framed)


def run_ways(seed: int, number: int) -> Counter[str]:
    """Run round ``number``: ``ROUND`` cases; how many ended in which way. Raises ``Breach``, with the case's number."""
    ends: Counter[str] = Counter()
    for case in range(ROUND):
        dice = Random(f"{seed}:{number}:{case}")
        target = TARGETS[case % len(TARGETS)]
        try:
            ends[target(dice)] += 1
        except Exception as error:
            where = f"seed {seed}, round {number}, case {case} ({target.__name__})"
            raise Breach(f"{where}: {error!r}") from error
    return ends
