"""What TLS makes of the bytes of a transport, and of those that are written."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import cast

import pytest

from mesh.transport.listen import NONE, REQUIRED
from mesh.transport.secured import PORTION, Secured
from mesh.transport.tlscontext import load
from tests.support.town import Town

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Below:
    """The transport below. ``sent``: what was written, one entry a call."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.calls: list[str] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def writelines(self, parts: list[bytes]) -> None:
        self.sent.append(b"".join(parts))

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls

    def get_extra_info(self, name: str, default: object = None) -> object:
        return f"{name} of below"


class Upper:
    """What is above."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.calls: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.came.append(data)

    def eof_received(self) -> None:
        self.calls.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(exc)

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


class Ends:
    """A client, and the server's end that is tested."""

    def __init__(self, folder: Path, version: ssl.TLSVersion, client: str = NONE) -> None:
        town = Town(folder)
        context = town.client()
        context.minimum_version = context.maximum_version = version
        context.check_hostname = False
        self.below, self.upper = Below(), Upper()
        self.secured = Secured(cast(asyncio.Transport, self.below), load(town.files(client), "mqtt").first)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self._incoming, self._outgoing)

    def shake(self) -> bytes | None:
        """The handshake; returns what ``Secured.shake`` does at its end. The client gets what was sent until then."""
        rest = None
        for _ in range(4):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            data = self._outgoing.read()
            if data:
                rest = self.secured.shake(data)
            if rest is not None:
                break
            self.deliver()
        self.secured.set_protocol(cast(asyncio.Protocol, self.upper))
        if self.below.sent:
            self.deliver()
            self.client.do_handshake()
        return rest

    def deliver(self) -> None:
        """The client gets what was sent."""
        for part in self.below.sent:
            self._incoming.write(part)
        self.below.sent.clear()

    def read(self) -> bytes:
        """What the client can read of what was sent."""
        self.deliver()
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError):
            while part := self.client.read(1 << 20):
                parts.append(part)
        return b"".join(parts)

    def encrypted(self, data: bytes) -> bytes:
        """What the client sends for these bytes."""
        done = 0
        while done < len(data):
            done += self.client.write(memoryview(data)[done:])
        return self._outgoing.read()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [1, 1000, PORTION, PORTION + 1, 300_000])
def test_what_one_read_brought_is_passed_on_at_once_and_whole(
    tmp_path: Path, version: ssl.TLSVersion, size: int
) -> None:
    ends = Ends(tmp_path, version)
    assert ends.shake() == b""
    data = bytes(number % 251 for number in range(size))
    ends.secured.data_received(ends.encrypted(data))
    assert ends.upper.came == [data]
    ends.secured.data_received(ends.encrypted(b"first") + ends.encrypted(b"second"))
    assert ends.upper.came[1:] == [b"firstsecond"]


@pytest.mark.parametrize("version", VERSIONS)
def test_only_a_record_that_is_not_whole_waits(tmp_path: Path, version: ssl.TLSVersion) -> None:
    ends = Ends(tmp_path, version)
    ends.shake()
    records = ends.encrypted(b"first") + ends.encrypted(b"second")
    for number in range(len(records)):
        ends.secured.data_received(records[number : number + 1])
    assert ends.upper.came == [b"first", b"second"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [1, PORTION, PORTION + 1, 300_000])
def test_what_is_written_goes_to_the_transport_below_at_once(
    tmp_path: Path, version: ssl.TLSVersion, size: int
) -> None:
    ends = Ends(tmp_path, version)
    ends.shake()
    data = bytes(number % 251 for number in range(size))
    ends.secured.write(b"")
    assert ends.below.sent == []
    ends.secured.write(data)
    assert len(ends.below.sent) == 1
    assert ends.read() == data
    ends.secured.writelines([b"a", b"b"])
    assert ends.read() == b"ab"


def test_with_tls_1_3_the_ticket_goes_with_the_first_bytes_that_are_written(tmp_path: Path) -> None:
    ends = Ends(tmp_path, ssl.TLSVersion.TLSv1_3)
    ends.shake()
    assert ends.below.sent == []
    ends.secured.data_received(ends.encrypted(b"CONNECT"))
    assert ends.below.sent == []
    ends.secured.write(b"CONNACK")
    assert len(ends.below.sent) == 1
    assert ends.client.session is None or not ends.client.session.has_ticket
    assert ends.read() == b"CONNACK"
    assert ends.client.session is not None
    assert ends.client.session.has_ticket
    ends.secured.flush()
    assert ends.below.sent == []


@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_that_come_with_the_end_of_the_handshake_are_not_lost(tmp_path: Path, version: ssl.TLSVersion) -> None:
    ends = Ends(tmp_path, version)
    with contextlib.suppress(ssl.SSLWantReadError):
        ends.client.do_handshake()
    data = ends._outgoing.read()
    early = b"early" * 10_000
    while (rest := ends.secured.shake(data)) is None:
        ends.deliver()
        with contextlib.suppress(ssl.SSLWantReadError):
            ends.client.do_handshake()
        data = ends._outgoing.read()
        if version == ssl.TLSVersion.TLSv1_3:
            data += ends.encrypted(early)
    assert not ends.upper.came
    ends.secured.set_protocol(cast(asyncio.Protocol, ends.upper))
    ends.secured.data_received(rest)
    assert b"".join(ends.upper.came) == (early if version == ssl.TLSVersion.TLSv1_3 else b"")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_says_that_it_ends_is_answered_so(tmp_path: Path, version: ssl.TLSVersion) -> None:
    ends = Ends(tmp_path, version)
    ends.shake()
    last = ends.encrypted(b"last")
    with contextlib.suppress(ssl.SSLWantReadError):
        ends.client.unwrap()
    ends.secured.data_received(last + ends._outgoing.read())
    assert (ends.upper.came, ends.upper.calls, ends.below.calls) == ([b"last"], ["eof"], ["close"])
    ends.deliver()
    ends.client.unwrap()  # raises if the answer has not come
    ends.secured.write(b"too late")
    ends.secured.write_eof()
    assert ends.below.sent == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", ["write_eof", "close"])
def test_the_end_is_said_within_tls_and_what_follows_is_not_read(
    tmp_path: Path, version: ssl.TLSVersion, way: str
) -> None:
    ends = Ends(tmp_path, version)
    ends.shake()
    ends.secured.write(b"last")
    getattr(ends.secured, way)()
    assert ends.below.calls == [way]
    assert ends.secured.is_closing()
    ends.secured.data_received(ends.encrypted(b"ignored"))
    assert ends.upper.came == []
    ends.deliver()
    assert ends.client.read(10) == b"last"
    with pytest.raises(ssl.SSLZeroReturnError):  # and not an end that anyone could have made
        assert ends.client.read(10) == b""
        raise ssl.SSLZeroReturnError
    ends.secured.close()
    assert ends.below.calls[-1] == "close"


@pytest.mark.parametrize("version", VERSIONS)
def test_one_that_breaks_the_protocol_is_told_and_closed(tmp_path: Path, version: ssl.TLSVersion) -> None:
    ends = Ends(tmp_path, version)
    ends.shake()
    record = bytearray(ends.encrypted(b"changed on the way"))
    record[-1] ^= 1
    ends.secured.data_received(bytes(record))
    assert (ends.upper.came, ends.below.calls) == ([], ["close"])
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        ends.read()
    ends.secured.connection_lost(None)
    assert isinstance(ends.upper.calls[0], ssl.SSLError)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_whose_handshake_fails_is_told_why(tmp_path: Path, version: ssl.TLSVersion) -> None:
    ends = Ends(tmp_path, version, REQUIRED)  # and the client has no certificate
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        ends.shake()
    with pytest.raises(ssl.SSLError, match=r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"):
        ends.deliver() if version == ssl.TLSVersion.TLSv1_2 else None
        ends.client.do_handshake()
        ends.read()


def test_everything_else_is_passed_on(tmp_path: Path) -> None:
    ends = Ends(tmp_path, ssl.TLSVersion.TLSv1_3)
    ends.shake()
    secured, error = ends.secured, ConnectionResetError()
    secured.pause_writing()
    secured.resume_writing()
    secured.eof_received()
    secured.connection_lost(error)
    assert ends.upper.calls == ["pause", "resume", "eof", error]
    secured.pause_writing()
    secured.eof_received()
    secured.connection_lost(None)
    assert len(ends.upper.calls) == 4, "the connection is lost once"
    assert secured.get_extra_info("ssl_object") is secured.session
    assert secured.get_extra_info("peername") == "peername of below"
    secured.abort()
    assert ends.below.calls == ["abort"]
