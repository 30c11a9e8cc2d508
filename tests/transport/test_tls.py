"""A listener with TLS: what it asks of clients, what it knows of them, and what it does with handshakes."""

from __future__ import annotations

import asyncio
import socket
import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from mesh.broker.peer import TlsFacts
from mesh.transport.listen import NONE, OPTIONAL, REQUIRED, KeyPair, TlsFiles
from tests.support.certificates import Authority, Issued, put
from tests.support.hall import Hall
from tests.support.loop import run

SECONDS = 10


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
            client.close()

    run(main())


def test_a_client_without_a_certificate_has_no_names(tmp_path: Path) -> None:
    town = Town(tmp_path)

    async def main() -> None:
        for client in (NONE, OPTIONAL):
            async with Hall(tls=town.files(client)) as hall:
                answer, link = await call(hall.listener.port, town.client())
                found = facts(hall)
                assert (answer, found.fingerprint, found.common_name, found.not_after) == (b"hello", "", "", 0)
                link.close()

    run(main())
