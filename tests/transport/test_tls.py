"""A listener with TLS: what it asks of clients, what it knows of them, and what it does with handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import SubjectAlternativeName

from mesh.broker.peer import TlsFacts
from mesh.transport import accept, tlscontext
from mesh.transport.accept import Pace, Starting
from mesh.transport.listen import NONE, OPTIONAL, REQUIRED, KeyPair, Listen, TlsFiles
from mesh.transport.listeners import Listeners
from mesh.transport.rates import BURST, Rates
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.tlscontext import Contexts
from mesh.transport.tlsfiles import WatchedTls
from mesh.transport.trust import EXPIRED, REVOKED, UNKNOWN, UNTRUSTED
from mesh.transport.wheel import Wheel
from tests.support.certificates import DAY, Authority, now, put
from tests.support.hall import Echo, Hall
from tests.support.loop import run
from tests.support.ports import free_port
from tests.support.tlsclient import SECONDS, Client
from tests.support.town import Town
from tests.support.waiting import until

SECOND = datetime.timedelta(seconds=1)


async def call(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> tuple[bytes, Client]:
    """Connect and echo, in a thread."""

    def both() -> tuple[bytes, Client]:
        client = Client(port, context, session)
        return client.echo(), client

    return await asyncio.to_thread(both)


def facts(hall: Hall) -> TlsFacts:
    found = hall.streams()[-1].peer.tls
    assert found is not None
    return found


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_peer_has_the_facts_of_its_handshake_and_certificate(
    tmp_path: Path, kind: str, version: ssl.TLSVersion
) -> None:
    town = Town(tmp_path, kind)
    vehicle = town.authority.issue(
        "VIN7", dns=["car.example"], kind=kind,
        names=[x509.RFC822Name("car@example.com"), x509.UniformResourceIdentifier("vin:7")],
    )  # fmt: skip

    async def main() -> None:
        async with Hall(tls=town.files()) as hall:
            answer, client = await call(hall.listener.port, town.client(vehicle, version))
            found = facts(hall)
            assert answer == b"hello"
            cipher = client.socket.cipher()
            assert cipher is not None
            assert (found.version, found.cipher, found.resumed) == (client.socket.version(), cipher[0], False)
            assert (found.common_name, found.dns, found.email, found.uri) == (
                "VIN7", ("car.example",), ("car@example.com",), ("vin:7",),
            )  # fmt: skip
            certificate = vehicle.certificate
            assert int(found.serial, 16) == certificate.serial_number
            assert found.fingerprint == certificate.fingerprint(SHA256()).hex()
            assert (found.issuer, found.not_after) == ("CN=authority", certificate.not_valid_after_utc.timestamp())
            peer = hall.streams()[-1].peer
            assert (peer.address, peer.port) == client.socket.getsockname()
            await close(client)

    run(main())


def test_a_client_without_a_certificate_has_no_names(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        for client in (NONE, OPTIONAL):
            async with Hall(tls=town.files(client)) as hall:
                answer, link = await call(hall.listener.port, town.client())
                found = facts(hall)
                assert (answer, found.fingerprint, found.common_name, found.not_after) == (b"hello", "", "", 0)
                await close(link)

    run(main())


V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(("version", "resumption"), [(V12, True), (V13, True), (V13, False)])
def test_a_session_is_resumed_if_the_listener_allows_it(
    tmp_path: Path, resumption: bool, version: ssl.TLSVersion
) -> None:
    town = Town(tmp_path)
    vehicle = town.authority.issue("VIN7")

    async def main() -> None:
        async with Hall(tls=replace(town.files(), resumption=resumption)) as hall:
            context = town.client(vehicle, version)
            _, first = await call(hall.listener.port, context)
            session = first.socket.session
            await close(first)
            answer, second = await call(hall.listener.port, context, session)
            assert (answer, second.socket.session_reused, facts(hall).resumed) == (b"hello", resumption, resumption)
            assert facts(hall).common_name == "VIN7"
            await close(second)

    run(main())


def test_a_client_that_sends_nothing_gets_its_ticket_too(tmp_path: Path) -> None:
    town = Town(tmp_path)

    def ticket(port: int) -> None:
        client = Client(port, town.client(version=V13))
        client.socket.settimeout(0.1)
        deadline = time.monotonic() + SECONDS
        while client.socket.session is None or not client.socket.session.has_ticket:
            assert time.monotonic() < deadline
            with contextlib.suppress(TimeoutError):
                client.socket.recv(1)

    async def main() -> None:
        async with Hall(tls=town.files(NONE)) as hall:
            await asyncio.to_thread(ticket, hall.listener.port)

    run(main())


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("way", ["revoked", "expired"])
def test_a_certificate_that_is_not_accepted_now_is_refused_when_new_and_when_it_resumes(
    tmp_path: Path, way: str, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = Town(tmp_path)
    good, bad = town.authority.issue("GOOD"), town.authority.issue("BAD", end=now() + 30 * SECOND)
    town.revoke()

    async def main() -> None:
        async with Hall(tls=town.files(crl=True)) as hall:
            port = hall.listener.port
            sessions: dict[str, tuple[ssl.SSLContext, ssl.SSLSession | None]] = {}
            for name, issued in (("good", good), ("bad", bad)):
                context = town.client(issued, version)
                answer, client = await call(port, context)
                assert answer == b"hello", name
                sessions[name] = context, client.socket.session
                await close(client)
            await until(lambda: not hall.streams())
            if way == "revoked":
                town.revoke(bad)
                await until(lambda: revoked(hall) == 1)
            else:
                end = bad.certificate.not_valid_after_utc.timestamp()
                monkeypatch.setattr("mesh.transport.trust.time.time", lambda: end)
            for name, (context, session) in sessions.items():
                assert await refused(hall, context, session) == (name == "bad")
            assert await refused(hall, town.client(bad, version))
            assert not await refused(hall, town.client(good, version))
            await until(lambda: not hall.streams())
            status = hall.listener.status().tls
            assert status is not None
            assert (status.begun, status.done, status.resumed, status.failed) == (6, 3, 1, 2)

    run(main())


def revoked(hall: Hall) -> int:
    status = hall.listener.status().tls
    assert status is not None
    return status.revoked


@pytest.mark.parametrize("way", ["revoked", "expired"])
def test_an_open_connection_ends_when_its_certificate_is_not_accepted_and_no_other_does(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = Town(tmp_path)
    bad = [town.authority.issue(f"BAD{number}", end=now() + 30 * SECOND) for number in range(3)]
    good = [town.authority.issue(f"GOOD{number}") for number in range(3)]
    town.revoke()

    async def main() -> None:
        async with Hall(tls=town.files(crl=True)) as hall:
            clients = {issued: (await call(hall.listener.port, town.client(issued)))[1] for issued in (*good, *bad)}
            if way == "revoked":
                town.revoke(*bad)
            else:
                end = bad[0].certificate.not_valid_after_utc.timestamp()
                monkeypatch.setattr("mesh.transport.trust.time.time", lambda: end + 1)
            await until(lambda: len(hall.streams()) == 3)
            why = {(one.peer.tls.common_name[:3], one.why) for one in hall.made if one.peer.tls is not None}
            assert why == {("GOO", ""), ("BAD", REVOKED if way == "revoked" else EXPIRED)}
            for issued in good:
                assert await asyncio.to_thread(clients[issued].echo) == b"hello"
            for client in clients.values():
                await close(client)

    run(main())


def test_an_open_connection_ends_when_no_authority_vouches_for_its_certificate_and_no_other_does(
    tmp_path: Path,
) -> None:
    town = Town(tmp_path)
    gone, under = Authority("gone"), Authority("under", town.authority)
    renewed = Authority("renewed")
    lost = Authority("lost", gone)
    everyone = town.authority.pem() + gone.pem() + renewed.pem()
    put(town.ca, everyone)
    signers = {"DIRECT": town.authority, "CHAIN": under, "RENEWED": renewed, "GONE": gone, "LOST": lost}
    stay = {"DIRECT", "CHAIN", "RENEWED", "RESUMED"}

    async def main() -> None:
        async with Hall(limit=20, tls=town.files()) as hall:
            port = hall.listener.port
            clients = {
                name: (await call(port, town.client(one.issue(f"V-{name}"))))[1] for name, one in signers.items()
            }
            context = town.client(town.authority.issue("RESUMED"))
            _, first = await call(port, context)
            session = first.socket.session
            await close(first)
            _, clients["RESUMED"] = await call(port, context, session)
            assert clients["RESUMED"].socket.session_reused
            put(town.ca, everyone + Authority("further").pem())
            await until(lambda: len(contexts(hall).trust.authorities) == 4)
            for client in clients.values():
                assert await asyncio.to_thread(client.echo) == b"hello"
            put(town.ca, town.authority.pem() + Authority("renewed", key=renewed.key).pem())
            await until(lambda: len(hall.streams()) == len(stay))
            ended = {one.peer.tls.common_name for one in hall.made if one.why == UNTRUSTED and one.peer.tls}
            assert ended == {"V-GONE", "V-LOST"}
            for name in stay:
                assert await asyncio.to_thread(clients[name].echo) == b"hello"
            assert await refused(hall, town.client(gone.issue("LATE")))
            for client in clients.values():
                await close(client)

    run(main())


def contexts(hall: Hall) -> Contexts:
    gate = hall.listener._tls
    assert isinstance(gate, WatchedTls)
    return gate._present()


def test_a_handshake_that_began_with_other_authorities_is_judged_by_the_present_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    town, gone = Town(tmp_path), Authority("gone")
    put(town.ca, town.authority.pem() + gone.pem())

    async def main() -> None:
        async with Hall(tls=town.files(), handshake=60.0) as hall:
            clients = [
                await HalfShaken.begin(hall.listener.port, town.client(one.issue("V")))
                for one in (town.authority, gone)
            ]
            put(town.ca, town.authority.pem())
            await until(lambda: len(contexts(hall).trust.authorities) == 1)
            assert [await client.end() for client in clients] == [b"hello", b""]
            assert UNTRUSTED in caplog.text

    run(main())


class HalfShaken:
    """A client that has got the server's part of a handshake with TLS 1.3, and not yet sent its certificate."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    @classmethod
    async def begin(cls, port: int, context: ssl.SSLContext) -> HalfShaken:
        client = cls(*await asyncio.open_connection("127.0.0.1", port), context)
        with contextlib.suppress(ssl.SSLWantReadError):
            client._tls.do_handshake()
        client._writer.write(client._outgoing.read())
        client._incoming.write(await client._reader.read(65_536))
        client._tls.do_handshake()
        return client

    async def end(self) -> bytes:
        """What comes back; nothing from a server that ends the connection."""
        self._tls.write(b"hello")
        self._writer.write(self._outgoing.read())
        async with asyncio.timeout(SECONDS):
            while data := await self._reader.read(65_536):
                self._incoming.write(data)
                with contextlib.suppress(ssl.SSLWantReadError):
                    return self._tls.read(100)
        return b""


def test_a_certificate_that_does_not_verify_is_refused_also_where_none_is_needed(tmp_path: Path) -> None:
    town = Town(tmp_path)
    foreign = Authority().issue("VIN7")  # of another authority with the same name

    async def main() -> None:
        for client in (OPTIONAL, REQUIRED):
            async with Hall(tls=town.files(client)) as hall:
                assert await refused(hall, town.client(foreign))
                assert await refused(hall, town.client()) == (client == REQUIRED)

    run(main())


async def refused(hall: Hall, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> bool:
    """Whether a client is refused, in the handshake or after it."""
    try:
        answer, client = await call(hall.listener.port, context, session)
    except (ssl.SSLError, ConnectionError):
        return True
    await close(client)
    return answer == b""


async def close(client: Client) -> None:
    await asyncio.to_thread(client.close)


# The common names and DNS names of a certificate, and those that are left.
ODD = [
    (("VIN7",), (), "VIN7", ()),
    ((), (), "", ()),
    (("VIN7", "VIN8"), (), "", ()),
    (("VIN7\0.evil",), (), "", ()),
    (("VIN7\n",), (), "", ()),
    (("VIN7",), ("car.example\0.evil", "car.example"), "VIN7", ("car.example",)),
    (("*",), ("*.example",), "*", ("*.example",)),
    (("ВИН7",), (), "ВИН7", ()),
]  # fmt: skip


@pytest.mark.parametrize(("common", "dns", "left", "left_dns"), ODD)
def test_a_name_that_could_be_read_differently_is_left_out(
    tmp_path: Path, common: tuple[str, ...], dns: tuple[str, ...], left: str, left_dns: tuple[str, ...]
) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        async with Hall(tls=town.files()) as hall:
            answer, client = await call(hall.listener.port, town.client(town.authority.issue(*common, dns=dns)))
            assert (answer, facts(hall).common_name, facts(hall).dns) == (b"hello", left, left_dns)
            await close(client)

    run(main())


def test_a_certificate_that_cannot_be_read_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    town = Town(tmp_path)
    x400 = x509.UnrecognizedExtension(SubjectAlternativeName.oid, bytes.fromhex("3004a3020500"))
    unreadable = town.authority.issue("VIN7", more=[x400])

    async def main() -> None:
        async with Hall(tls=town.files()) as hall:
            assert await refused(hall, town.client(unreadable))
            assert "its certificate cannot be read" in caplog.text
            assert not await refused(hall, town.client(town.authority.issue("VIN8")))

    run(main())


def test_a_huge_certificate_is_refused_and_a_long_chain_is_not(tmp_path: Path) -> None:
    town = Town(tmp_path)
    lower = town.authority
    for number in range(6):
        lower = Authority(f"lower {number}", lower)

    async def main() -> None:
        async with Hall(tls=town.files()) as hall:
            assert await refused(hall, town.client(town.authority.issue("HUGE", extra=120_000)))
            assert not await refused(hall, town.client(town.authority.issue("LARGE", extra=20_000)))
            assert not await refused(hall, town.client(lower.issue("LOW")))
            assert not await refused(hall, town.client(town.authority.issue("GOOD")))

    run(main())


def test_with_lists_the_signer_of_a_certificate_must_be_known_and_not_revoked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    town = Town(tmp_path)
    lower, unknown = Authority("lower", town.authority), Authority("unknown", town.authority)
    again = Authority("lower", town.authority)  # the same name with another key
    put(town.ca, town.authority.pem() + lower.pem() + again.pem())
    clients = {name: one.issue(name) for name, one in (("LOW", lower), ("AGAIN", again), ("HIGH", unknown))}

    async def main() -> None:
        town.revoke()
        async with Hall(tls=town.files(crl=True)) as hall:
            context = {name: town.client(issued) for name, issued in clients.items()}
            assert [await refused(hall, context[name]) for name in clients] == [False, False, True]
            assert UNKNOWN in caplog.text
            answer, live = await call(hall.listener.port, context["LOW"])
            assert answer == b"hello"
            put(town.folder / "crl.pem", town.authority.revoke(lower.certificate))
            await until(lambda: any(one.why == REVOKED for one in hall.made))
            assert [await refused(hall, context[name]) for name in clients] == [True, False, True]
            await close(live)

    run(main())


def served(port: int, context: ssl.SSLContext, name: str) -> tuple[str, str]:
    """The common name and the kind of key of the certificate that a client gets which asks for ``name``."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as plain, context.wrap_socket(
        plain, server_hostname=name or None
    ) as link:
        certificate = x509.load_der_x509_certificate(link.getpeercert(True) or b"")
    (common,) = certificate.subject
    return str(common.value), "rsa" if isinstance(certificate.public_key(), rsa.RSAPublicKey) else "ecdsa"


def test_a_client_gets_the_certificate_of_the_name_that_it_asks_for_with_a_key_that_it_knows(tmp_path: Path) -> None:
    town = Town(tmp_path)
    pairs = [KeyPair(town.cert, town.key)]
    for number, (dns, kind) in enumerate(
        [("a.example", "ecdsa"), ("a.example", "rsa"), ("*.b.example", "ecdsa"), ("*.b.example", "rsa")]
    ):
        issued = town.authority.issue(dns.replace("*", "any"), dns=[dns], kind=kind, server=True)
        pairs.append(KeyPair(*issued.write(tmp_path, f"more{number}")))

    async def main() -> None:
        async with Hall(tls=replace(town.files(NONE), pairs=tuple(pairs))) as hall:
            for ciphers, kind in (("ECDHE-ECDSA-AES128-GCM-SHA256", "ecdsa"), ("ECDHE-RSA-AES128-GCM-SHA256", "rsa")):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                context.maximum_version = V12
                context.set_ciphers(ciphers)
                for asked, got in [
                    ("a.example", "a.example"), ("A.Example", "a.example"), ("x.b.example", "any.b.example"),
                ]:  # fmt: skip
                    assert await asyncio.to_thread(served, hall.listener.port, context, asked) == (got, kind)
            context = ssl.create_default_context(cadata=town.authority.pem().decode())
            context.check_hostname = False
            for asked in ("", "b.example", "y.x.b.example", "else.example", "localhost"):
                assert await asyncio.to_thread(served, hall.listener.port, context, asked) == ("server", "ecdsa")

    run(main())


NOTHING = "Cipher is (NONE)"  # no connection came about


def test_a_handshake_is_taken_for_one_with_the_dearest_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rsa").mkdir()
    town, beside = Town(tmp_path), Town(tmp_path / "rsa", "rsa")
    costs = {town.cert: 1.0, beside.cert: 2.0}
    monkeypatch.setattr(tlscontext, "_cost", lambda _files, _protocol, pair: costs[pair.cert])
    pairs = KeyPair(town.cert, town.key), KeyPair(beside.cert, beside.key)
    for order in (pairs, pairs[::-1]):
        assert tlscontext.load(replace(town.files(NONE), pairs=order), "mqtt").cost == 2.0


def s_client(port: int, *options: str, text: str = "hello\n") -> str:
    """What ``openssl s_client`` says."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *options]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_openssl_finds_only_what_is_allowed(tmp_path: Path) -> None:
    town = Town(tmp_path)
    lower = Authority("lower", town.authority)
    pair = KeyPair(*lower.issue("server", dns=["localhost"], server=True).write(tmp_path, "low"))
    ca = ("-CAfile", str(town.ca), "-verify_return_error", "-verify_hostname", "localhost")

    async def main() -> None:
        async with Hall(tls=replace(town.files(NONE), pairs=(pair,))) as hall:
            port = hall.listener.port

            async def said(*options: str, text: str = "") -> str:
                return await asyncio.to_thread(s_client, port, *options, text=text)

            for version in ("-tls1_2", "-tls1_3"):
                found = await said(version, *ca, "-alpn", "x,mqtt", "-showcerts", "-reconnect")
                assert "Verify return code: 0 (ok)" in found
                assert "ALPN protocol: mqtt" in found
                assert found.count("BEGIN CERTIFICATE") >= 2, "the whole chain"
            assert "No ALPN negotiated" in await said("-tls1_3", *ca)
            old = ("-cipher", "ALL:@SECLEVEL=0")
            for version in ("-tls1", "-tls1_1"):
                assert NOTHING in await said(version, *old), version
            for weak in ("AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "NULL", "aNULL"):
                assert NOTHING in await said("-tls1_2", "-cipher", f"{weak}:@SECLEVEL=0"), weak
            renegotiated = await said("-tls1_2", *ca, text="R\n")
            assert "RENEGOTIATING" in renegotiated
            assert "no renegotiation" in renegotiated
            assert "Compression: NONE" in await said("-tls1_2", *ca, "-comp")
        async with Hall(tls=replace(town.files(NONE), pairs=(pair,), min="1.3")) as hall:
            port = hall.listener.port
            assert NOTHING in await said("-tls1_2")
            assert "Verify return code: 0 (ok)" in await said("-tls1_3", *ca)

    run(main())


def test_a_handshake_counts_as_a_connection_until_its_deadline(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        async with Hall(limit=2, tls=town.files(), handshake=0.5) as hall:
            _, silent = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            _, begun = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            begun.write(HELLO)
            await until(lambda: len(hall.streams()) == 2 and handshakes(hall) == (1, 0, 0, 0))
            assert [one.transport for one in hall.streams()] == [None, None]
            third, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            with contextlib.suppress(ConnectionError):
                assert await third.read() == b""
            assert hall.listener.refused == 1
            await until(lambda: not hall.streams() and handshakes(hall) == (1, 0, 0, 2))
            answer, client = await call(hall.listener.port, town.client(town.authority.issue("VIN7")))
            assert answer == b"hello"
            await close(client)
            for one in (silent, begun, writer):
                one.close()

    run(main())


def test_a_stream_that_ends_before_its_handshake_closes_the_socket(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        async with Hall(tls=town.files()) as hall:
            ends = [await asyncio.open_connection("127.0.0.1", hall.listener.port) for _ in range(2)]
            ends[1][1].write(HELLO)
            await until(lambda: len(hall.streams()) == 2 and handshakes(hall)[0] == 1)
            for stream in hall.streams():
                stream.finish()  # it gives way to others
            ends[0][1].write(HELLO)
            for reader, writer in ends:
                with contextlib.suppress(ConnectionError):
                    while await asyncio.wait_for(reader.read(1000), SECONDS):
                        pass
                writer.close()
            assert hall.streams() == []

    run(main())


def test_handshakes_that_come_too_often_do_not_begin(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        pace = Pace(asyncio.get_running_loop(), Rates(address=1))
        async with Hall(limit=1000, tls=town.files(NONE), pace=pace) as hall:
            for _ in range(int(BURST)):
                pace.rates.check("127.0.0.1")
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await call(hall.listener.port, town.client())
            assert handshakes(hall)[0] == 0
            pace.rates.allow(1000, 1000, 1000)
            answer, client = await call(hall.listener.port, town.client())
            assert answer == b"hello"
            await close(client)

    run(main())


def test_bytes_that_are_no_handshake_end_the_connection_at_once(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        async with Hall(tls=town.files()) as hall:
            mqtt = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"
            for data in (mqtt, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" * 9):
                reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
                writer.write(data)
                writer.write_eof()
                with contextlib.suppress(ConnectionError):
                    while await reader.read(1000):
                        pass
                writer.close()
            await until(lambda: not hall.streams() and handshakes(hall)[3] == 3)

    run(main())


def test_stop_ends_connections_that_have_not_arrived_and_no_other(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        async with Hall(tls=town.files(NONE)) as hall:
            _, client = await call(hall.listener.port, town.client())
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            await until(lambda: len(hall.streams()) == 2)
            hall.listener.stop()
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert await asyncio.to_thread(client.echo) == b"hello"
            await until(lambda: len(hall.streams()) == 1)
            await close(client)
            writer.close()

    run(main())


def test_open_connections_stay_when_files_change_and_new_ones_get_the_new_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    town = Town(tmp_path)
    caplog.set_level("INFO", "mesh")

    async def main() -> None:
        async with Hall(limit=50, tls=town.files(NONE)) as hall:
            port = hall.listener.port
            context = town.client()
            context.check_hostname = False
            clients = [(await call(port, context))[1] for _ in range(10)]
            assert await asyncio.to_thread(served, port, context, "") == ("server", "ecdsa")
            town.authority.issue("second", server=True, kind="rsa").write(tmp_path, "server")
            await until(lambda: hall.listener.detail() == "" and "read again" in caplog.text)
            assert await asyncio.to_thread(served, port, context, "") == ("second", "rsa")
            for spoil, word in (
                (lambda: put(town.key, b"nothing"), "not a private key in PEM format"),
                (lambda: put(town.cert, b"nothing"), "no certificate in PEM format"),
                (town.cert.unlink, "there is no such file"),
                (lambda: town.authority.issue("old", server=True, end=now()).write(tmp_path, "server"), "expired on"),
            ):
                spoil()
                await until(lambda word=word: word in hall.listener.detail())
                status = hall.listener.status().tls
                assert status is not None
                assert status.wrong
                assert f"the old ones stay in force: {tmp_path}" in caplog.text
                assert await asyncio.to_thread(served, port, context, "") == ("second", "rsa")
            town.authority.issue("third", server=True).write(tmp_path, "server")
            await until(lambda: not hall.listener.detail())
            assert await asyncio.to_thread(served, port, context, "") == ("third", "ecdsa")
            for client in clients:
                assert await asyncio.to_thread(client.echo) == b"hello"
                await close(client)

    run(main())


def test_a_wrong_list_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    town = Town(tmp_path)
    good, bad = town.authority.issue("GOOD"), town.authority.issue("BAD")
    town.revoke(bad)

    async def main() -> None:
        async with Hall(tls=town.files(crl=True)) as hall:
            put(tmp_path / "crl.pem", Authority("else").revoke())
            await until(lambda: "signed by none of the certificates in ca" in hall.listener.detail())
            assert await refused(hall, town.client(bad))
            assert not await refused(hall, town.client(good))
            put(tmp_path / "crl.pem", town.authority.revoke(bad.certificate, due=now() - DAY))
            await until(lambda: "it stays in force" in hall.listener.detail())
            assert await refused(hall, town.client(bad))
            assert not await refused(hall, town.client(good))

    run(main())


def test_days_until_expiry_are_shown_and_few_of_them_are_a_warning(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        for days, text in ((29, "expires in 28 days"), (-1, "expired on"), (40, "")):
            town.authority.issue("server", server=True, end=now() + days * DAY).write(tmp_path, "server")
            async with Hall(tls=town.files()) as hall:
                status = hall.listener.status().tls
                assert status is not None
                (cert, ca) = status.certificates
                assert (cert.file, ca.file) == (str(town.cert), str(town.ca))
                assert days - 0.1 < cert.days <= days < 3000 < ca.days
                assert (text in hall.listener.detail()) if text else not hall.listener.detail()

    run(main())


HELLO = bytes.fromhex("160301")  # the first bytes of a handshake


def handshakes(hall: Hall) -> tuple[int, int, int, int]:
    status = hall.listener.status().tls
    assert status is not None
    return status.begun, status.done, status.resumed, status.failed


def client_hello(context: ssl.SSLContext) -> bytes:
    """The first flight of a client."""
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()


def test_handshakes_that_are_begun_and_left_give_way_to_others(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        pace = Pace(asyncio.get_running_loop())
        pace.most, pace.old = 20, 0.2
        async with Hall(limit=500, tls=town.files(NONE), handshake=60.0, pace=pace) as hall:
            port, context = hall.listener.port, town.client()
            hello = client_hello(context)
            _, before = await call(port, context)
            left = []
            for _ in range(100):
                left.append((await asyncio.open_connection("127.0.0.1", port))[1])
                left[-1].write(hello)
            answer, after = await call(port, context)
            assert answer == b"hello"
            assert handshakes(hall)[3] >= 80, "the others gave way"
            assert await asyncio.to_thread(before.echo) == b"hello"
            for client in (before, after):
                await close(client)
            for writer in left:
                writer.close()

    run(main())


class Start(Starting):
    """Notes its start in ``started``, and ends with it."""

    def __init__(self, pace: Pace, name: str, started: list[str]) -> None:
        super().__init__()
        self.pace, self.name, self.started = pace, name, started

    def start(self) -> None:
        self.started.append(self.name)
        self.pace.over(self)


def test_clients_that_are_connected_are_served_between_two_handshakes_that_start() -> None:
    started: list[str] = []

    async def main() -> None:
        clock = [0.0]
        pace = Pace(asyncio.get_running_loop(), clock=lambda: clock[0])
        for number in range(50):
            pace.ask(Start(pace, str(number), started), "192.0.2.1", 0.001)
        assert started == ["0"]
        for turn in range(5):
            before = len(started)
            await asyncio.sleep(0)
            assert len(started) - before <= 1, f"one in a turn without time, turn {turn}"
        clock[0] += 10.0
        for _ in range(3):
            before = len(started)
            await asyncio.sleep(0)
            assert len(started) - before <= 1 + accept.LONGEST / 0.001
        await until(lambda: len(started) == 50)
        assert started == [str(number) for number in range(50)]
        await until(lambda: pace._timer is None)
        pace.ask(Start(pace, "later", started), "192.0.2.1", 0.001)
        assert started[-1] == "later", "it starts at once if none has started in this turn"

    run(main())


def test_networks_take_turns() -> None:
    started: list[str] = []

    async def main() -> None:
        pace = Pace(asyncio.get_running_loop(), clock=lambda: 0.0)
        many = [f"192.0.2.{number}" for number in range(100)]
        others = ["198.51.100.1", "2001:db8::1", "198.51.100.2", "2001:db8::2"]
        pace.ask(Start(pace, "", started), "203.0.113.1", 0.001)  # the others wait
        for address in (*many, *others):
            pace.ask(Start(pace, address, started), address, 0.001)
        await until(lambda: len(started) == 105)
        assert started[1:8] == [many[0], *others[:2], many[1], *others[2:], many[2]]
        assert started[8:] == many[3:]

    run(main())


def test_others_are_accepted_while_most_that_wait_are_of_one_network(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        pace = Pace(asyncio.get_running_loop())
        pace.room, pace.most = 10, 0
        async with Hall(limit=500, tls=town.files(NONE), handshake=60.0, pace=pace) as hall:
            port, hello = hall.listener.port, client_hello(town.client())
            pairs = []

            async def come(address: str) -> asyncio.StreamReader:
                pairs.append(await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))
                pairs[-1][1].write(hello)
                return pairs[-1][0]

            await come("127.3.0.1")
            await until(lambda: pace.waiting == 1)
            for number in range(9):
                await come(f"127.1.1.{number + 1}")
                await until(lambda number=number: pace.waiting == number + 2)
            for number in range(3):
                reader = await come(f"127.1.1.{100 + number}")
                async with asyncio.timeout(SECONDS):
                    with contextlib.suppress(ConnectionResetError):
                        assert await reader.read() == b"", "one more of that network"
            for number in range(5):
                await come(f"127.2.{number}.1")
                await until(lambda number=number: pace.waiting == 11 + number)
            status = hall.listener.status()
            assert (status.accepted, status.turned_away) == (15, 3)
            for _, writer in pairs:
                writer.close()

    run(main())


def test_no_connection_is_accepted_while_too_many_handshakes_wait(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        pace = Pace(asyncio.get_running_loop())
        pace.room, pace.most = 4, 0
        async with Hall(limit=500, tls=town.files(NONE), handshake=60.0, pace=pace) as hall:
            port, context = hall.listener.port, town.client()
            hello = client_hello(context)
            left = []
            for number in range(30):
                left.append((await asyncio.open_connection("127.0.0.1", port))[1])
                left[-1].write(hello)
                if number < 4:
                    await until(lambda number=number: len(hall.streams()) == number + 1)
            await until(lambda: hall.listener.status().accepted >= 4)
            await asyncio.sleep(0.1)
            assert hall.listener.status().accepted < 30, "the others wait in the kernel's queue"
            pace.most = 100
            answer, client = await call(port, context)
            assert (answer, hall.listener.status().accepted) == (b"hello", 31)
            await close(client)
            for writer in left:
                writer.close()

    run(main())


def test_a_client_is_told_why_its_handshake_fails(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        async with Hall(tls=town.files(REQUIRED)) as hall:
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                context = town.client(version=version)
                with pytest.raises(ssl.SSLError, match=r"(?i)alert.*(handshake.failure|certificate.required)"):
                    await asyncio.to_thread(lambda: Client(hall.listener.port, context).socket.recv(1))  # noqa: B023
            await until(lambda: not hall.streams() and handshakes(hall) == (2, 0, 0, 2))

    run(main())


def test_few_bytes_are_kept_of_a_client_whose_handshake_has_not_started(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        pace = Pace(asyncio.get_running_loop())
        pace.most = 0  # none starts
        async with Hall(tls=town.files(NONE), pace=pace) as hall:
            reader, writer = await asyncio.open_connection("127.0.0.1", hall.listener.port)
            writer.write(bytes(accept.FIRST))
            await until(lambda: pace.waiting == 1)
            writer.write(b"one more")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            await until(lambda: not hall.streams() and handshakes(hall) == (0, 0, 0, 1))
            writer.close()

    run(main())


def test_a_listener_with_other_settings_keeps_its_socket_and_its_connections(tmp_path: Path) -> None:
    town = Town(tmp_path)
    issued = town.authority.issue("second", dns=["localhost"], server=True)
    pairs = (KeyPair(*issued.write(tmp_path, "second")),)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wheel = Wheel(loop)
        group = StreamGroup(loop, wheel)
        ended: list[Stream] = []
        listeners = Listeners("door", group, lambda: Echo(group), ended.append, 10)
        first = Listen("mqtts", "127.0.0.1", free_port(), tls=town.files(NONE))
        await listeners.start([first])
        context = town.client()
        context.check_hostname = False
        _, client = await call(first.port, context)
        other = replace(first, tls=replace(town.files(NONE), pairs=pairs))
        (await listeners.prepare([other])).withdraw()
        assert await asyncio.to_thread(served, first.port, context, "") == ("server", "ecdsa")
        (await listeners.prepare([other])).commit()
        assert await asyncio.to_thread(served, first.port, context, "") == ("second", "ecdsa")
        with pytest.raises(OSError, match="no such file"):
            await listeners.prepare([replace(first, tls=TlsFiles((KeyPair(tmp_path / "none", tmp_path / "none"),)))])
        assert await asyncio.to_thread(served, first.port, context, "") == ("second", "ecdsa")
        assert await asyncio.to_thread(client.echo) == b"hello"
        assert ended == []
        assert listeners.status()[0].accepted == 4, "the counters go on"
        await close(client)
        listeners.close()

    run(main())
