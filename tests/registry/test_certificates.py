"""Only clients with a certificate from its folder reach the embedded etcd."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mesh.private import NotPrivate
from mesh.registry.authority import issue
from mesh.registry.certificates import AUTHORITY, CLIENT, SERVER, certificate, keep_certificates, key
from mesh.registry.client import EtcdClient, EtcdTls
from mesh.registry.embedded import EmbeddedEtcd, client_tls, endpoint_of, find_binary, keep_ports
from mesh.registry.errors import EtcdFailed, Unavailable
from tests.support.waiting import PATIENCE

HOST = "127.0.0.1"


def folder_of(etcd: EmbeddedEtcd) -> Path:
    return etcd.log_file.parent


async def refused(endpoint: str, tls: EtcdTls | None) -> None:
    client = EtcdClient([endpoint], tls=tls)
    try:
        with pytest.raises(Unavailable):
            await client.put(b"/mesh/m/vehicles/CAR-1", b"{}", timeout=2.0)
    finally:
        await client.close()


def other_certificates(folder: Path) -> EtcdTls:
    """Those of another mesh."""
    keep_certificates(folder, HOST)
    return EtcdTls(folder / AUTHORITY, certificate(folder, CLIENT), key(folder, CLIENT))


def test_etcd_takes_only_the_clients_of_its_folder(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    async def main() -> None:
        own = client_tls(folder_of(etcd))
        other = other_certificates(tmp_path / "other")
        await refused(f"http://{HOST}:{etcd.client_port}", None)
        await refused(etcd.endpoint, EtcdTls(own.ca))
        await refused(etcd.endpoint, EtcdTls(own.ca, other.cert, other.key))
        client = etcd.client()
        assert await client.get(b"/mesh/m/vehicles/CAR-1") is None
        await client.put(b"/mesh/m/vehicles/CAR-1", b"{}")
        await client.delete(b"/mesh/m/vehicles/CAR-1")
        await client.close()

    asyncio.run(main())


def request(port: int, context: ssl.SSLContext | None) -> bytes:
    """The answer of a port to a request of HTTP; empty if there is none."""
    try:
        with socket.create_connection((HOST, port), timeout=5.0) as plain:
            connection = plain if context is None else context.wrap_socket(plain, server_hostname=HOST)
            connection.sendall(b"GET /version HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n")
            return connection.recv(4096)
    except OSError:
        return b""


@pytest.mark.parametrize("port", [lambda etcd: etcd.client_port, lambda etcd: etcd.peer_port], ids=["client", "peer"])
def test_no_port_of_etcd_answers_without_a_certificate(
    etcd: EmbeddedEtcd, port: Callable[[EmbeddedEtcd], int]
) -> None:
    """The peer port takes changes of the store."""
    own = client_tls(folder_of(etcd))
    assert own.cert is not None
    stranger = ssl.create_default_context(cafile=own.ca)
    member = ssl.create_default_context(cafile=own.ca)
    member.load_cert_chain(own.cert, own.key)
    assert b"200 OK" not in request(port(etcd), None)
    assert request(port(etcd), stranger) == b""
    assert b"200 OK" in request(port(etcd), member)


def test_client_takes_no_etcd_of_another_user(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    """While etcd is down, another user may listen on its port."""

    async def main() -> None:
        own = client_tls(folder_of(etcd))
        await refused(etcd.endpoint, EtcdTls(other_certificates(tmp_path / "other").ca, own.cert, own.key))

    asyncio.run(main())


def start_plain(folder: Path) -> subprocess.Popen[bytes]:
    """An etcd on this folder as releases before the certificates started it."""
    client_port, peer_port = keep_ports(folder)
    client, peer = f"http://{HOST}:{client_port}", f"http://{HOST}:{peer_port}"
    command = [
        str(find_binary()), "--name=mesh", f"--data-dir={folder / 'data'}", f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=mesh={peer}", "--log-level=error",
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_folder_of_an_earlier_release_gets_certificates_and_keeps_its_data(folder: Path) -> None:
    async def main() -> None:
        process = start_plain(folder)
        client = EtcdClient([f"http://{HOST}:{keep_ports(folder)[0]}"])
        try:
            await client.status(timeout=PATIENCE)
            await client.put(b"k", b"kept", timeout=PATIENCE)
        finally:
            await client.close()
            process.terminate()
            process.wait(PATIENCE)
        folder.chmod(0o755)
        for _ in range(2):
            server = EmbeddedEtcd(folder)
            await server.start()
            assert server.endpoint == endpoint_of(folder)
            client = server.client()
            entry = await client.get(b"k")
            assert entry is not None
            assert entry.value == b"kept"
            await client.close()
            await server.stop()
        assert folder.stat().st_mode & 0o777 == 0o700

    asyncio.run(main())


def test_certificates_are_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: keep_certificates(folder, HOST), range(8)))
    names = {AUTHORITY, *(f"{name}.{end}" for name in (SERVER, CLIENT) for end in ("pem", "key"))}
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == names
    assert [path.name for path in tmp_path.iterdir()] == ["certificates"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    keep_certificates(folder, HOST)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_no_file_has_the_key_of_the_authority(tmp_path: Path) -> None:
    keep_certificates(tmp_path / "certificates", HOST)
    keys = [path.name for path in (tmp_path / "certificates").iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert sorted(keys) == ["client.key", "server.key"]
    assert issue(HOST).authority != issue(HOST).authority


def test_key_that_others_could_read_keeps_etcd_down(folder: Path) -> None:
    tls = client_tls(folder)
    assert tls.key is not None
    tls.key.chmod(0o640)

    async def main() -> None:
        with pytest.raises(NotPrivate, match=f"chmod 600 {tls.key}"):
            await EmbeddedEtcd(folder).start()

    asyncio.run(main())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("name", ["ports.json", f"certificates/{AUTHORITY}", "certificates/server.pem"])
def test_file_of_another_user_keeps_etcd_down(folder: Path, name: str) -> None:
    endpoint_of(folder)
    client_tls(folder)
    os.chown(folder / name, 54_321, 54_321)

    async def main() -> None:
        with pytest.raises(NotPrivate, match=f"{folder / name} belongs to"):
            await EmbeddedEtcd(folder).start()

    asyncio.run(main())


def test_missing_certificate_is_named(folder: Path) -> None:
    client_tls(folder)
    (folder / "certificates" / "server.pem").unlink()

    async def main() -> None:
        with pytest.raises(EtcdFailed, match=r"server\.pem.*remove .*certificates"):
            await EmbeddedEtcd(folder).start()

    asyncio.run(main())
