"""The HTTP request before a WebSocket: what is let in, and the answer to everything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.transport.listen import HeaderRule, Listen
from mesh.transport.upgrade import LARGEST, MOST, BadRequest, Rules, Upgrade
from tests.support.shows import shows
from tests.support.websockets import ACCEPT, BINARY, frame, request

FLEET = "https://fleet.example.com"


def listen(origins: tuple[str, ...] = (), headers: tuple[HeaderRule, ...] = ()) -> Listen:
    return Listen("ws", "127.0.0.1", 0, "/mqtt", origins=origins, headers=headers)


PLAIN = listen()


def status(data: bytes, where: Listen = PLAIN) -> int:
    """What the request is answered with, in one piece and, unless bytes follow it, in single bytes; 0 if it is not
    complete."""
    whole = _status(data, len(data), where)
    if data.partition(b"\r\n\r\n")[2] == b"":
        assert whole == _status(data, 1, where)
    return whole


def _status(data: bytes, size: int, where: Listen) -> int:
    upgrade = Upgrade(Rules(where))
    answer = b""
    refused: BadRequest | None = None
    try:
        for at in range(0, len(data), max(size, 1)):
            assert not answer
            answer = upgrade.feed(data[at : at + size])
    except BadRequest as bad:
        refused = bad
    if refused is None:
        return int(answer.split(b" ")[1]) if answer else 0
    assert str(refused)
    head, _, body = refused.answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"HTTP/1.1 %d " % refused.status.value)
    assert b"Connection: close" in lines
    assert b"Content-Length: %d" % len(body) in lines
    assert not upgrade.headers
    return int(refused.status)


def why(data: bytes, where: Listen = PLAIN) -> str:
    with pytest.raises(BadRequest) as raised:
        Upgrade(Rules(where)).feed(data)
    return str(raised.value)


@shows(v3="6.0.0-4", v5="6.0.0-4")
def test_the_answer_is_that_of_the_rfc_and_selects_the_subprotocol() -> None:
    answer = Upgrade(Rules(PLAIN)).feed(request())
    assert answer.decode().split("\r\n") == [
        "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {ACCEPT}", "Sec-WebSocket-Protocol: mqtt", "", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        request(connection="keep-alive, Upgrade", upgrade="WebSocket"),
        request("/mqtt?token=1"),
        request(sec_websocket_protocol="chat, mqtt ,mqttv3.1"),
        request(sec_websocket_protocol="chat", more="Sec-WebSocket-Protocol: mqtt\r\n"),
        request(more="Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"),
        request(more="Content-Length: 0\r\n"),
        request(more="X-Tab:\tone\ttwo \r\n"),
        request(more="X-Latin: f\xfcr\r\n"),
        request(more="Cookie: " + "c" * 6000 + "\r\n"),
    ],
)
def test_requests_of_all_browsers_are_let_in(data: bytes) -> None:
    assert status(data) == 101


def test_the_client_s_own_headers_are_kept() -> None:
    upgrade = Upgrade(Rules(PLAIN))
    upgrade.feed(request(more="User-Agent: car/1\r\nX-Fleet: blue\r\nX-FLEET: red\r\n"))
    assert upgrade.headers == (
        ("host", "127.0.0.1"), ("user-agent", "car/1"), ("x-fleet", "blue"), ("x-fleet", "red"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (request(method="POST"), 405),
        (request(method="OPTIONS"), 405),
        (request("/other"), 404),
        (request("/mqtt/"), 404),
        (request("/MQTT"), 404),
        (request("/%6dqtt"), 404),
        (request("/mqtt/../mqtt"), 404),
        (request("http://127.0.0.1/mqtt"), 404),
        (request("*"), 404),
        (request(version="HTTP/1.0"), 505),
        (request(version="HTTP/2.0"), 505),
        (request(version="HTTP/1.1 x"), 400),
        (request(upgrade=None), 426),
        (request(upgrade="h2c"), 426),
        (request(connection=None), 426),
        (request(connection="close"), 426),
        (request(sec_websocket_version="8"), 426),
        (request(sec_websocket_version=None), 426),
        (request(sec_websocket_key=None), 400),
        (request(sec_websocket_key="dGhlIHNhbXBsZSBub25j"), 400),
        (request(sec_websocket_key="not base64 at all !!!!!="), 400),
        (request(sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==\xe4"), 400),
        (request(sec_websocket_protocol=None), 400),
        (request(sec_websocket_protocol="mqttv3.1"), 400),
        (request(sec_websocket_protocol="MQTT"), 400),
        (request(host=None), 400),
        (request(host=""), 400),
    ],
)
def test_another_request_is_answered_with_what_it_lacks(data: bytes, expected: int) -> None:
    assert status(data) == expected


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (request(more="Host: other\r\n"), "host: headers"),
        (request(origin=FLEET, more="Origin: https://evil.example\r\n"), "origin stands there 2 times"),
        (request(more="Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "sec-websocket-key stands there 2 times"),
        (request(more="Content-Length: 0\r\nContent-Length: 0\r\n"), "content-length stands there 2 times"),
        (request(more="Content-Length: 5\r\n"), "a body"),
        (request(more="Content-Length: 00\r\n"), "a body"),
        (request(more="Content-Length: 0, 0\r\n"), "a body"),
        (request(more="Content-Length: -1\r\n"), "Content-Length"),
        (request(more="Transfer-Encoding: chunked\r\n"), "a body"),
        (request(more="Transfer-Encoding: identity\r\n"), "Transfer-Encoding"),
        (request(more="Transfer-Encoding : chunked\r\n"), "header line"),
        (request(more="X-A: 1\r\n folded\r\n"), "folded"),
        (request(more="X-A: 1\r\n\tOrigin: https://evil.example\r\n"), "folded"),
        (request().replace(b"\r\nHost", b"\r\n Host"), "folded"),
        (request(more="X-A: 1\nX-B: 2\r\n"), "bare"),
        (request(more="X-A: 1\rX-B: 2\r\n"), "bare"),
        (request().replace(b"\r\n", b"\n"), "bare"),
        (request(more="X-A: 1\r\r\n"), "bare"),
        (request(more="X-A: a\0b\r\n"), "control"),
        (request(more="X-A: a\x01b\r\n"), "control"),
        (request(more="X-A: a\x7fb\r\n"), "control"),
        (request("/mq\0tt"), "control"),
        (request(more="X A: 1\r\n"), "header line"),
        (request(more="no colon\r\n"), "header line"),
        (request(more=": 1\r\n"), "header line"),
        (request("/mqtt HTTP/1.1 /other"), "request line"),
        (request() + frame(BINARY, b"early", mask=b"    "), "follow"),
        (request() + request(), "follow"),
        (request("/other") + b"early", "follow"),
        (b"\x10\x0e\x00\x04MQTT", "no HTTP"),
        (b"\x16\x03\x01\x02\x00", "no HTTP"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 50123 1883\r\n" + request(), "request line"),
        (b"\r\n" + request(), "no HTTP"),
        (b"GET" + b" /mqtt" * 2, ""),
    ],
)
def test_what_two_programs_could_read_differently_is_malformed(data: bytes, what: str) -> None:
    if not what:
        assert status(data) == 0
        return
    assert status(data) == 400
    assert what.lower() in why(data).lower()


def test_a_request_is_bounded_in_bytes_and_headers() -> None:
    assert status(request(more="X: 1\r\n" * (MOST - 6))) == 101
    assert status(request(more="X: 1\r\n" * (MOST - 5))) == 431
    room = LARGEST - len(request(more="X: \r\n"))
    assert status(request(more=f"X: {'x' * room}\r\n")) == 101
    assert status(request(more=f"X: {'x' * (room + 1)}\r\n")) == 431
    assert status(request(more=f"X: {'x' * 100_000}")) == 431
    assert status(b"GET /" + b"a" * LARGEST) == 431
    assert status(b"A" * 30) == 400


@pytest.mark.parametrize(
    ("allowed", "origin", "expected"),
    [
        ((), None, 101),
        ((), FLEET, 403),
        ((), "null", 403),
        ((), "", 403),
        ((FLEET,), FLEET, 101),
        ((FLEET,), "HTTPS://Fleet.Example.com", 101),
        ((FLEET,), None, 403),
        ((FLEET,), "null", 403),
        ((FLEET,), "", 403),
        ((FLEET,), "https://fleet.example.com.evil.example", 403),
        ((FLEET,), "http://fleet.example.com", 403),
        ((FLEET,), "https://fleet.example.com:8443", 403),
        (("https://a.example", FLEET), FLEET, 101),
        (("*",), "https://any.example", 101),
        (("*",), None, 101),
    ],
)
def test_only_pages_from_allowed_origins_connect(allowed: tuple[str, ...], origin: str | None, expected: int) -> None:
    assert status(request(origin=origin), listen(origins=allowed)) == expected


EXACT = HeaderRule("x-fleet", "blue")
PATTERN = HeaderRule("x-env", "prod-[a-z]{1,20}", pattern=True)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("X-Fleet: blue\r\nX-Env: prod-eu\r\n", 101),
        ("x-fleet: blue\r\nX-ENV: prod-eu\r\n", 101),
        ("X-Fleet: blue\r\n", 403),
        ("X-Env: prod-eu\r\n", 403),
        ("X-Fleet: Blue\r\nX-Env: prod-eu\r\n", 403),
        ("X-Fleet: blues\r\nX-Env: prod-eu\r\n", 403),
        ("X-Fleet: blue\r\nX-Env: prod-eu1\r\n", 403),
        ("X-Fleet: blue\r\nX-Env: a prod-eu\r\n", 403),
        ("X-Fleet: blue\r\nX-Fleet: red\r\nX-Env: prod-eu\r\n", 403),
        ("X-Fleet: blue\r\nX-Fleet: blue\r\nX-Env: prod-eu\r\n", 403),
    ],
)
def test_required_headers_have_their_value(more: str, expected: int) -> None:
    where = listen(headers=(EXACT, PATTERN))
    assert status(request(more=more), where) == expected


def test_the_answer_does_not_say_what_would_be_right() -> None:
    with pytest.raises(BadRequest) as raised:
        Upgrade(Rules(listen(headers=(EXACT,)))).feed(request(more="X-Fleet: red\r\n"))
    assert b"blue" not in raised.value.answer
    assert b"fleet" not in raised.value.answer
    assert "x-fleet" in str(raised.value)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_random_bytes_are_answered_the_same_in_any_pieces(data: bytes, size: int) -> None:
    data = data.partition(b"\r\n\r\n")[0]
    for begun in (b"", b"GET /mqtt HTTP/1.1\r\n"):
        assert _status(begun + data, size, PLAIN) == _status(begun + data, 1, PLAIN)


@given(st.integers(0, len(request()) - 1), st.integers(0, 255), st.integers(1, 50))
def test_a_changed_request_is_answered_the_same_in_any_pieces(at: int, byte: int, size: int) -> None:
    data = request()[:at] + bytes((byte,)) + request()[at:]
    assert _status(data, size, PLAIN) == _status(data, len(data), PLAIN)
