"""A listener with TLS: what it asks of clients, what it knows of them, and what it does with handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from mesh.broker.peer import TlsFacts
from mesh.transport.listen import NONE, OPTIONAL, REQUIRED, KeyPair, TlsFiles
from mesh.transport.trust import EXPIRED, REVOKED
from tests.support.certificates import Authority, Issued, now, put
from tests.support.hall import Hall
from tests.support.loop import run
from tests.support.waiting import until

SECONDS = 10
SECOND = datetime.timedelta(seconds=1)


class Town:
    """An authority, and the files of a listener."""

    def __init__(self, folder: Path, kind: str = "ecdsa") -> None:
        self.folder = folder
        self.authority = Authority()
        self.cert, self.key = self.authority.issue(
            "server", dns=["localhost"], names=[x509.IPAddress(ip_address("127.0.0.1"))],
            kind=kind, server=True,
        ).write(folder, "server")  # fmt: skip
        self.ca = put(folder / "ca.pem", self.authority.pem())

    def files(self, client: str = REQUIRED, crl: bool = False) -> TlsFiles:
        return TlsFiles(
            (KeyPair(self.cert, self.key),), client, None if client == NONE else self.ca,
            self.folder / "crl.pem" if crl else None,
        )  # fmt: skip

    def revoke(self, *issued: Issued) -> None:
        put(self.folder / "crl.pem", self.authority.revoke(*[one.certificate for one in issued]))

    def client(self, issued: Issued | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem().decode())
        if issued is not None:
            context.load_cert_chain(*issued.write(self.folder, "client"))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context


class Client:
    """A TLS client on a blocking socket, so that it may resume a session."""

    def __init__(self, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        plain = socket.create_connection(("127.0.0.1", port), SECONDS)
        try:
            self.socket = context.wrap_socket(plain, server_hostname="127.0.0.1", session=session)
        except BaseException:
            plain.close()
            raise

    def echo(self) -> bytes:
        """What comes back; nothing from a server that ends the connection."""
        try:
            self.socket.sendall(b"hello")
            return self.socket.recv(100)
        except (ssl.SSLError, ConnectionError):
            return b""

    def close(self) -> None:
        """Close as a client that may resume its session: TLS first."""
        with contextlib.suppress(OSError):
            self.socket.unwrap()
        self.socket.close()


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
