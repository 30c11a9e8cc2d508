"""Headers of the PROXY protocol, written from its description."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_pton
from struct import pack
from typing import Final

from mesh.wire.proxy import crc32c

SIGNATURE: Final = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
LOCAL: Final = 0x20
PROXY: Final = 0x21
UNKNOWN: Final = 0x00
TCP4: Final = 0x11
UDP4: Final = 0x12
TCP6: Final = 0x21
UNIX: Final = 0x31

CHECKSUM: Final = 0x03
TLS: Final = 0x20
TLS_VERSION: Final = 0x21
COMMON_NAME: Final = 0x22
CIPHER: Final = 0x23
CERTIFICATE: Final = 0x07  # TLS, with a certificate in this handshake, and in the session


def block(command: int, transport: int, rest: bytes) -> bytes:
    """A header of version 2."""
    return SIGNATURE + pack("!BBH", command, transport, len(rest)) + rest


def inet(client: str, server: str, port: int, to: int) -> bytes:
    """The addresses of TCP over IPv4."""
    return inet_pton(AF_INET, client) + inet_pton(AF_INET, server) + pack("!HH", port, to)


def inet6(client: str, server: str, port: int, to: int) -> bytes:
    """The addresses of TCP over IPv6."""
    return inet_pton(AF_INET6, client) + inet_pton(AF_INET6, server) + pack("!HH", port, to)


def extension(kind: int, value: bytes) -> bytes:
    return pack("!BH", kind, len(value)) + value


def tls(version: bytes, *parts: bytes, client: int = CERTIFICATE, verify: int = 0) -> bytes:
    """The extension for TLS, with this version unless it is empty."""
    own = extension(TLS_VERSION, version) if version else b""
    return extension(TLS, pack("!BL", client, verify) + own + b"".join(parts))


def with_checksum(command: int, transport: int, rest: bytes) -> bytes:
    """A header of version 2 with its checksum as the last extension."""
    empty = block(command, transport, rest + extension(CHECKSUM, bytes(4)))
    return empty[:-4] + pack("!L", crc32c(empty))
