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
from mesh.transport import tlscontext
from mesh.transport.listen import NONE, OPTIONAL, REQUIRED, KeyPair, Listen, TlsFiles
from mesh.transport.listeners import Listeners
from mesh.transport.stream import Stream, StreamGroup
from mesh.transport.tlscontext import Contexts
from mesh.transport.tlsfiles import WatchedTls
from mesh.transport.trust import EXPIRED, REVOKED, UNKNOWN, UNTRUSTED
from mesh.transport.wheel import Wheel
from tests.support.certificates import DAY, Authority, now, put
from tests.support.hall import Echo, Hall
from tests.support.loop import run
from tests.support.ports import free_port
from tests.support.tlsclient import SECONDS, Client, call, close
from tests.support.town import Town
from tests.support.waiting import until

SECOND = datetime.timedelta(seconds=1)


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
