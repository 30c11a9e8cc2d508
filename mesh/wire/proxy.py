"""The header of the PROXY protocol, versions 1 and 2, which a load balancer sends before the bytes of its client.

The description is HAProxy's ``proxy-protocol.txt``. It knows the header's form: never sockets, or who may send one.
What always holds:

* a header has at most ``LONGEST`` bytes, and a wrong one is refused at its first wrong byte;
* the header is recognised the same in any pieces, and no byte after it is taken;
* what is ambiguous is refused: a number with zeros before it, an extension that stands there twice, a checksum that
  does not fit.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, final

LONGEST: Final = 4096  # bytes; the description asks for 536 at least, and a client's certificate takes 1 to 2 kB

_FIRST: Final = b"PROXY "
_LINE: Final = 107  # bytes of the longest line of version 1
_SECOND: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_FIXED: Final = 16  # bytes before the addresses of version 2

_LOCAL: Final = 0x20  # version 2, the load balancer's own connection: a health check
_PROXY: Final = 0x21
_UNKNOWN: Final = 0x00
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_UNIX: Final = 0x31
_ADDRESSES: Final = {_UNKNOWN: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}  # bytes

# Extensions of version 2, and parts of the one for TLS.
_CHECKSUM: Final = 0x03
_TLS: Final = 0x20
_TLS_VERSION: Final = 0x21
_TLS_COMMON_NAME: Final = 0x22
_TLS_CIPHER: Final = 0x23

_CLIENT_TLS: Final = 0x01  # the client is connected over TLS
_CLIENT_CERTIFICATE: Final = 0x06  # it has shown a certificate, in this handshake or one that is resumed


@final
class ProxyError(ValueError):
    """The bytes are no header of the PROXY protocol; the text says why."""


@final
class ProxyTls:
    """What a load balancer says about TLS with its client. ``version`` and ``cipher`` are OpenSSL's names, or empty.
    ``common_name`` is that of the client's certificate; empty if it has none, or the certificate was not verified."""

    __slots__ = ("cipher", "common_name", "version")

    def __init__(self, version: str, cipher: str, common_name: str) -> None:
        self.version = version
        self.cipher = cipher
        self.common_name = common_name


@final
class ProxyHeader:
    """``address`` and ``port`` are the client's; empty and 0 if the load balancer does not say them, or the connection
    is its own. ``tls``: ``None`` if it says nothing about TLS, or the client is connected without."""

    __slots__ = ("address", "port", "tls")

    def __init__(self, address: str = "", port: int = 0, tls: ProxyTls | None = None) -> None:
        self.address = address
        self.port = port
        self.tls = tls


@final
class ProxyReader:
    """Reads one header. ``header`` is set when it is complete."""

    __slots__ = ("_data", "header")

    def __init__(self) -> None:
        self._data = b""
        self.header: ProxyHeader | None = None

    def feed(self, data: bytes) -> int:
        """How many of these bytes belong to the header. Raises ``ProxyError`` if it is wrong."""
        if self.header is not None:
            return 0
        before = len(self._data)
        whole = self._data + data[:LONGEST]
        if whole[:6] == _FIRST[: len(whole)]:
            size = _size_of_line(whole)
        elif whole[:12] == _SECOND[: len(whole)]:
            size = _size_of_block(whole)
        else:
            raise ProxyError("the connection does not begin with a header of the PROXY protocol")
        if size == 0 or size > len(whole):
            self._data = whole
            return len(whole) - before
        self._data = b""
        self.header = _of_line(whole[: size - 2]) if whole[0] == _FIRST[0] else _of_block(whole[:size])
        return size - before


def _size_of_line(data: bytes) -> int:
    """Bytes of a header of version 1; 0 if its end has not come."""
    end = data.find(b"\n", 0, _LINE)
    if end < 0:
        if len(data) >= _LINE:
            raise ProxyError(f"the line of the PROXY protocol has more than {_LINE} bytes")
        return 0
    if data[end - 1] != 0x0D:
        raise ProxyError("the line of the PROXY protocol does not end with CR LF")
    return end + 1


def _of_line(line: bytes) -> ProxyHeader:
    try:
        fields = line.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise ProxyError("the line of the PROXY protocol is not ASCII") from None
    kind = fields[1]
    if kind == "UNKNOWN":
        return ProxyHeader()
    if kind not in ("TCP4", "TCP6"):
        raise ProxyError(f"the PROXY protocol names the transport {kind[:16]!r}; TCP4, TCP6 or UNKNOWN is right")
    if len(fields) != 6:
        raise ProxyError(f"the line of the PROXY protocol has {len(fields)} fields; 6 is right")
    client = ""
    for text in (fields[3], fields[2]):
        client = _address_in(text, kind)
    port = 0
    for text in (fields[5], fields[4]):
        port = _port_in(text)
    return ProxyHeader(client, port)


def _address_in(text: str, kind: str) -> str:
    try:
        if kind == "TCP4":
            return str(IPv4Address(text))
        if "%" not in text:
            return plain_address(IPv6Address(text))
    except AddressValueError:
        pass
    raise ProxyError(f"{text[:45]!r} in the PROXY protocol is no address of {kind}")


def _port_in(text: str) -> int:
    port = int(text) if text.isdigit() and len(text) <= 5 else -1
    if str(port) != text or port > 0xFFFF:
        raise ProxyError(f"{text[:16]!r} in the PROXY protocol is no port")
    return port


def plain_address(address: IPv6Address) -> str:
    """An IPv4 address that is written as an IPv6 address is the IPv4 address: one host has one address."""
    mapped = address.ipv4_mapped
    return str(address) if mapped is None else str(mapped)


def _size_of_block(data: bytes) -> int:
    """Bytes of a header of version 2; 0 if its length has not come."""
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        raise ProxyError(f"0x{data[12]:02x} in the PROXY protocol is no command of version 2")
    if len(data) > 13 and data[13] not in _ADDRESSES and data[12] == _PROXY:
        raise ProxyError(f"0x{data[13]:02x} in the PROXY protocol is no transport that a client of MQTT uses")
    if len(data) < _FIXED:
        return 0
    size = _FIXED + _two(data, 14)
    if size > LONGEST:
        raise ProxyError(f"the header of the PROXY protocol has {size} bytes; at most {LONGEST} are accepted")
    if data[12] == _PROXY and size < _FIXED + _ADDRESSES[data[13]]:
        raise ProxyError("the header of the PROXY protocol is too short for its addresses")
    return size


def _of_block(data: bytes) -> ProxyHeader:
    transport = data[13]
    if data[12] == _LOCAL or transport == _UNKNOWN:
        return ProxyHeader()
    tls = _extensions(data, _FIXED + _ADDRESSES[transport])
    if transport == _TCP4:
        return ProxyHeader(str(IPv4Address(data[16:20])), _two(data, 24), tls)
    if transport == _TCP6:
        return ProxyHeader(plain_address(IPv6Address(data[16:32])), _two(data, 48), tls)
    return ProxyHeader("", 0, tls)  # a Unix socket, which names no host


def _extensions(data: bytes, start: int) -> ProxyTls | None:
    tls: ProxyTls | None = None
    seen: set[int] = set()
    for kind, at, end in _parts(data, start, len(data)):
        if kind in (_CHECKSUM, _TLS):
            if kind in seen:
                raise ProxyError(f"the PROXY protocol's extension 0x{kind:02x} stands there twice")
            seen.add(kind)
        if kind == _CHECKSUM:
            _verify(data, at, end)
        elif kind == _TLS:
            tls = _tls_of(data, at, end)
    return tls


def _parts(data: bytes, pos: int, size: int) -> list[tuple[int, int, int]]:
    """The kind of each extension, where its value begins and where it ends."""
    parts: list[tuple[int, int, int]] = []
    while pos < size:
        end = pos + 3 + _two(data, pos + 1) if pos + 3 <= size else size + 1
        if end > size:
            raise ProxyError("an extension of the PROXY protocol is longer than what contains it")
        parts.append((data[pos], pos + 3, end))
        pos = end
    return parts


def _verify(data: bytes, at: int, end: int) -> None:
    if end - at != 4:
        raise ProxyError(f"the checksum of the PROXY protocol has {end - at} bytes; 4 is right")
    said = int.from_bytes(data[at:end], "big")
    if crc32c(data[:at] + b"\0\0\0\0" + data[end:]) != said:
        raise ProxyError("the checksum of the PROXY protocol does not fit")


def _tls_of(data: bytes, at: int, end: int) -> ProxyTls | None:
    if end - at < 5:
        raise ProxyError(f"the TLS extension of the PROXY protocol has {end - at} bytes; at least 5 is right")
    client, unverified = data[at], data[at + 1 : at + 5] != b"\0\0\0\0"
    texts: dict[int, str] = {}
    for kind, start, stop in _parts(data, at + 5, end):
        if kind in texts:
            raise ProxyError(f"the PROXY protocol's TLS value 0x{kind:02x} stands there twice")
        texts[kind] = _text(data[start:stop])
    if not client & _CLIENT_TLS:
        return None
    name = texts.get(_TLS_COMMON_NAME, "")
    if unverified or not client & _CLIENT_CERTIFICATE:
        name = ""
    return ProxyTls(texts.get(_TLS_VERSION, ""), texts.get(_TLS_CIPHER, ""), name)


def _text(value: bytes) -> str:
    """A text that other programs read the same way, else empty: without NUL and other control characters."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() else ""


def _two(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _table() -> list[int]:
    table: list[int] = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ 0x82F63B78 if value & 1 else value >> 1
        table.append(value)
    return table


_TABLE: Final = _table()


def crc32c(data: bytes) -> int:
    """The checksum with Castagnoli's polynomial (RFC 9260, appendix A)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF
