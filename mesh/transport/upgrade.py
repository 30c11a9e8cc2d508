"""The HTTP request with which a WebSocket begins (RFC 6455, section 4), and its answer.

It knows HTTP and what a listener asks of a request: never sockets, and no frame. What always holds:

* a request has at most ``LARGEST`` bytes and ``MOST`` headers; h11 reads it only when it is complete and free of all
  that two programs could read differently: a bare CR or LF, a control character, a folded header, a body, bytes after
  it, a header that must stand there once and does not;
* what a request lacks is looked at in this order: its form, method and path, then who asks (origin and headers), then
  WebSocket; the answer to a refused one does not say what would be right, the log does;
* no extension is accepted, so no frame is compressed.
"""

from __future__ import annotations

import binascii
import hmac
import re
from base64 import b64decode
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, final

import h11
from wsproto.utilities import generate_accept_token

from mesh.transport.listen import ANY_ORIGIN, HeaderRule, Listen, header_pattern

LARGEST: Final = 8192  # bytes of a request; browsers send 0.5 to 1 kB, and cookies
MOST: Final = 64  # headers
SUBPROTOCOL: Final = "mqtt"

_END: Final = b"\r\n\r\n"
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_BARE: Final = re.compile(rb"(?<!\r)\n|\r[^\n]")
_FOLDED: Final = re.compile(rb"\n[ \t]")
_METHOD: Final = re.compile(rb"[A-Z]{1,20}(?: |\Z)")
_LONGEST_METHOD: Final = 21  # bytes, with the space
_ONCE: Final = ("host", "origin", "upgrade", "sec-websocket-key", "sec-websocket-version", "content-length")
_KEY: Final = 16  # bytes of Sec-WebSocket-Key
# Not passed on: they belong to the connection, not to the client.
_OWN: Final = frozenset(
    ("connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol",
     "sec-websocket-extensions", "content-length", "keep-alive", "te", "trailer", "pragma", "cache-control")
)  # fmt: skip

Headers = tuple[tuple[str, str], ...]


class BadRequest(Exception):
    """The request is refused with ``status``; the text is for the log. ``more`` are headers of the answer."""

    def __init__(self, status: HTTPStatus, why: str, more: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.more = more

    @property
    def answer(self) -> bytes:
        """The whole answer."""
        text = f"{self.status.value} {self.status.phrase}\n"
        return (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nConnection: close\r\n{self.more}"
            f"Content-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n{text}"
        ).encode()


@final
class Rules:
    """What a listener asks of a request."""

    def __init__(self, listen: Listen) -> None:
        self.path = listen.path
        self._origins = frozenset([origin.lower() for origin in listen.origins])
        self._headers = [(rule.name, _matcher(rule)) for rule in listen.headers]

    def check(self, headers: Headers) -> None:
        """Whether a browser's page from this origin, and a client with these headers, may connect. Raises
        ``BadRequest``."""
        origin = _one(headers, "origin").lower()
        if not self._origins:
            if any(name == "origin" for name, _ in headers):
                raise _forbidden(f"the origin {origin[:200]!r} is not allowed: the listener names no origins")
        elif ANY_ORIGIN not in self._origins and origin not in self._origins:
            raise _forbidden(f"the origin {origin[:200]!r} is not among the listener's origins")
        for name, matches in self._headers:
            values = [value for other, value in headers if other == name]
            if len(values) != 1 or not matches(values[0]):
                raise _forbidden(f"the header {name} is missing, stands there twice or has another value")


def _matcher(rule: HeaderRule) -> Callable[[str], bool]:
    if rule.pattern:
        return header_pattern(rule.value).matches
    exact = rule.value.encode()
    return lambda value: hmac.compare_digest(exact, value.encode())  # it may be a secret


@final
class Upgrade:
    """Reads one request. ``headers``, once it is complete, are those that a client is told by: lower-case names, in
    their order."""

    __slots__ = ("_data", "_rules", "headers")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._data = b""
        self.headers: Headers = ()

    def feed(self, data: bytes) -> bytes:
        """Bytes came. Returns the answer when the request is complete, and nothing before. Raises ``BadRequest``."""
        seen = len(self._data)
        data = self._data = self._data + data[: LARGEST + 1]
        if seen < _LONGEST_METHOD and not _METHOD.match(data):
            raise _malformed("it is no HTTP request")
        if _CONTROL.search(data, seen):
            raise _malformed("it has a control character")
        if _BARE.search(data, max(0, seen - 1)):
            raise _malformed("it has a bare CR or LF")
        end = data.find(_END, max(0, seen - 3))
        if end > LARGEST - len(_END) or (end < 0 and len(data) > LARGEST):
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"it has more than {LARGEST} bytes")
        if end < 0:
            return b""
        self._data = b""
        if len(data) > end + len(_END):
            raise _malformed("bytes follow before it is answered")
        return self._answer(data)

    def _answer(self, head: bytes) -> bytes:
        if head.count(b"\n") - 2 > MOST:
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"it has more than {MOST} headers")
        if _FOLDED.search(head):
            raise _malformed("it has a folded header")
        request, headers = _parse(head), _headers(head)
        _well_formed(request, headers)
        if request.method != b"GET":
            raise BadRequest(
                HTTPStatus.METHOD_NOT_ALLOWED, f"its method is {request.method.decode()[:20]}; GET is right",
                "Allow: GET\r\n",
            )  # fmt: skip
        path = request.target.decode("latin-1").partition("?")[0]
        if path != self._rules.path:
            raise BadRequest(HTTPStatus.NOT_FOUND, f"its path is {path[:200]!r}; {self._rules.path} is right")
        self._rules.check(headers)
        key = _websocket(headers)
        self.headers = tuple([header for header in headers if header[0] not in _OWN])
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
            % (generate_accept_token(key.encode()), SUBPROTOCOL.encode())
        )


def _parse(head: bytes) -> h11.Request:
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST)
    server.receive_data(head)
    try:
        request = server.next_event()
    except h11.RemoteProtocolError as error:
        raise _malformed(str(error)[:200]) from None
    if not isinstance(request, h11.Request):
        raise _malformed("it is no HTTP request")
    return request


def _headers(head: bytes) -> Headers:
    """As they stand there: h11 makes one of two that are equal. It has checked their form."""
    lines = [line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:-2]]
    return tuple([(name.lower(), value.strip(" \t")) for name, _, value in lines])


def _well_formed(request: h11.Request, headers: Headers) -> None:
    """No body, and no header that another program could read differently."""
    if request.http_version != b"1.1":
        raise BadRequest(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "its version is not HTTP/1.1")
    names = [name for name, _ in headers]
    for name in _ONCE:
        if names.count(name) > 1:
            raise _malformed(f"the header {name} stands there {names.count(name)} times")
    if "transfer-encoding" in names or _one(headers, "content-length") not in ("", "0"):
        raise _malformed("it has a body")
    if not _one(headers, "host"):
        raise _malformed("the header host is missing or empty")


def _websocket(headers: Headers) -> str:
    """The request's ``Sec-WebSocket-Key``."""
    if _one(headers, "upgrade").lower() != "websocket" or "upgrade" not in _tokens(headers, "connection", lower=True):
        raise BadRequest(
            HTTPStatus.UPGRADE_REQUIRED, "it does not ask for a WebSocket",
            "Upgrade: websocket\r\nConnection: Upgrade\r\n",
        )  # fmt: skip
    if _one(headers, "sec-websocket-version") != "13":
        raise BadRequest(
            HTTPStatus.UPGRADE_REQUIRED, "its version of WebSocket is not 13", "Sec-WebSocket-Version: 13\r\n"
        )
    key = _one(headers, "sec-websocket-key")
    try:
        size = len(b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != _KEY:
        raise _malformed(f"its Sec-WebSocket-Key does not have {_KEY} bytes")
    if SUBPROTOCOL not in _tokens(headers, "sec-websocket-protocol"):
        raise _malformed(f"it does not offer the subprotocol {SUBPROTOCOL} [MQTT-6.0.0-3]")
    return key


def _one(headers: Headers, name: str) -> str:
    """The value of a header that stands there once at most; empty without it."""
    return next((value for other, value in headers if other == name), "")


def _tokens(headers: Headers, name: str, lower: bool = False) -> list[str]:
    values = [value.lower() if lower else value for other, value in headers if other == name]
    return [token.strip(" \t") for value in values for token in value.split(",")]


def _malformed(why: str) -> BadRequest:
    return BadRequest(HTTPStatus.BAD_REQUEST, why)


def _forbidden(why: str) -> BadRequest:
    return BadRequest(HTTPStatus.FORBIDDEN, why)
