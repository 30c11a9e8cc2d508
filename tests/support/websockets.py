"""The client's side of WebSocket, written from RFC 6455: a request, and frames byte by byte."""

from __future__ import annotations

import asyncio
from struct import pack, unpack
from typing import Final

KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="  # the RFC's example
ACCEPT: Final = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

MORE: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

HEADERS: Final = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "mqtt",
}


def request(
    path: str = "/mqtt", method: str = "GET", version: str = "HTTP/1.1", more: str = "", **other: str | None
) -> bytes:
    """A request to upgrade; ``other`` are other values of headers (``sec_websocket_key``), ``None`` for none; ``more``
    are further lines."""
    headers = dict(HEADERS)
    for name, value in other.items():
        headers = {key: own for key, own in headers.items() if key.lower() != name.replace("_", "-")}
        if value is not None:
            headers[name.replace("_", "-").title()] = value
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} {version}\r\n{lines}{more}\r\n".encode("latin-1")


def frame(kind: int, payload: bytes = b"", last: bool = True, mask: bytes = b"\x11\x22\x33\x44", rsv: int = 0) -> bytes:
    """A frame of a client; without ``mask`` it is not masked."""
    first = (0x80 if last else 0) | rsv << 4 | kind
    flag = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        length = bytes((flag | size,))
    elif size < 1 << 16:
        length = bytes((flag | 126,)) + pack("!H", size)
    else:
        length = bytes((flag | 127,)) + pack("!Q", size)
    return bytes((first,)) + length + mask + (masked(payload, mask) if mask else payload)


def masked(payload: bytes, mask: bytes) -> bytes:
    """Each byte with a byte of the mask, by exclusive or."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The kind and the payload of a server's whole frame."""
    first, second = await reader.readexactly(2)
    assert first & 0x80
    assert second < 0x80, "a server must not mask its frames"
    size = second
    if size == 126:
        size = unpack("!H", await reader.readexactly(2))[0]
    elif size == 127:
        size = unpack("!Q", await reader.readexactly(8))[0]
    return first & 0x7F, await reader.readexactly(size)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and the headers of an HTTP answer, lower-case names."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head[:-4].split("\r\n")
    return int(status.split(" ")[1]), {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
