"""An etcd with TLS on both sides, and users."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.registry.client import EtcdClient, EtcdTls
from mesh.registry.embedded import find_binary, free_ports
from mesh.registry.errors import Unauthorised, Unavailable
from mesh.registry.map import VehicleMap
from mesh.registry.members import Announcement, Members
from tests.support.waiting import PATIENCE, until

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl")

EDGES = {"edge-1": 1.0}


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60.0)


def certificates(folder: Path) -> None:
    """An authority, and the server's and client's certificates that it signed."""
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        # etcd uses the common name of a client's certificate as the user if none is given; this one has none.
        openssl(folder, "req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/O={name}")
        openssl(
            folder,
            *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "2", "-extfile", "names"),
            *("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        )


class Secured:
    """etcd with client certificates required, short-lived tokens, and the users root and mesh (the latter below /mesh/
    only)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client_port, self.peer_port = free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"https://127.0.0.1:{self.client_port}"
        self.tls = EtcdTls(folder / "ca.pem", folder / "client.pem", folder / "client.key")

    def start(self) -> None:
        peer = f"http://127.0.0.1:{self.peer_port}"
        self.process = subprocess.Popen(
            [
                find_binary(),
                f"--data-dir={self.folder / 'data'}",
                f"--listen-client-urls={self.endpoint}",
                f"--advertise-client-urls={self.endpoint}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                f"--cert-file={self.folder / 'server.pem'}",
                f"--key-file={self.folder / 'server.key'}",
                f"--trusted-ca-file={self.folder / 'ca.pem'}",
                "--client-cert-auth",
                "--auth-token-ttl=1",
                "--log-level=error",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10.0)

    def control(self, *arguments: str, stdin: str = "") -> None:
        tls = ["--cacert=ca.pem", "--cert=client.pem", "--key=client.key", f"--endpoints={self.endpoint}"]
        program = find_binary().with_name("etcdctl")
        subprocess.run([program, *tls, *arguments], cwd=self.folder, check=True, capture_output=True, timeout=30.0,
                       input=stdin.encode())  # fmt: skip

    def client(self, user: str | None = "mesh", password: str | None = "secret") -> EtcdClient:
        read = None if password is None else lambda: password
        return EtcdClient([self.endpoint], tls=self.tls, user=user, password=read)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    certificates(folder)
    secured = Secured(folder)
    secured.start()

    async def ready() -> None:
        client = EtcdClient([secured.endpoint], tls=secured.tls)
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await client.status(timeout=1.0)
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
        await client.close()

    asyncio.run(ready())
    secured.control("user", "add", "root:root")
    secured.control("user", "grant-role", "root", "root")
    secured.control("role", "add", "mesh")
    secured.control("role", "grant-permission", "--prefix=true", "mesh", "readwrite", "/mesh/")
    secured.control("user", "add", "mesh:secret")
    secured.control("user", "grant-role", "mesh", "mesh")
    secured.control("auth", "enable")
    yield secured
    secured.kill()


def test_map_works_with_tls_and_a_user(server: Secured, mesh: str) -> None:
    async def main() -> None:
        client = server.client()
        vehicles, members = VehicleMap(client, mesh), Members(client, mesh)
        edge = Announcement(client, mesh, name="edge-1", role="edge", host="h", ports={}, ttl=2)
        assert await vehicles.start(10.0)
        assert await members.start(10.0)
        assert await edge.start(10.0)
        record = await vehicles.claim("V", "pool", EDGES)
        await until(lambda: members.get("edge-1") and vehicles.live, "the watches are live")
        # etcd keeps simple tokens in memory: after its restart they are unknown, and the client logs in again.
        server.kill()
        await until(lambda: not vehicles.live, "etcd is unavailable")
        assert vehicles.cached("V") == record
        server.start()
        await until(lambda: vehicles.live and members.live, "the watches are live again")
        again = await vehicles.claim("W", "pool", EDGES)
        assert again.epoch == 1
        other = server.client()
        assert (await VehicleMap(other, mesh).move("W", "edge-2")).epoch == 2
        await until(lambda: (vehicles.cached("W") or again).epoch == 2, "changes arrive")
        await other.close()
        await edge.stop()
        await members.stop()
        await vehicles.stop()
        await client.close()

    asyncio.run(main())


def test_expired_token_is_renewed_within_the_call(server: Secured) -> None:
    async def main() -> None:
        client = server.client()
        await client.put(b"/mesh/k", b"1")
        first = client._token
        assert first
        # etcd drops a token that was not used for a second.
        await asyncio.sleep(3.0)
        await client.put(b"/mesh/k", b"2")
        assert client._token != first
        await client.close()

    asyncio.run(main())


def test_a_changed_password_is_read_at_the_next_login(server: Secured) -> None:
    async def main() -> None:
        password = "before"
        root = "--user=root:root"
        server.control("user", "add", f"changing:{password}", root)
        server.control("user", "grant-role", "changing", "mesh", root)
        client = EtcdClient([server.endpoint], tls=server.tls, user="changing", password=lambda: password)
        await client.put(b"/mesh/k", b"1")
        server.control("user", "passwd", "changing", "--interactive=false", root, stdin="after")
        password = "after"
        client.forget_token()
        await client.put(b"/mesh/k", b"2")
        await client.close()

    asyncio.run(main())


def test_a_password_that_cannot_be_read_is_tried_again(server: Secured) -> None:
    def read() -> str:
        if not there:
            raise FileNotFoundError(2, "etcd.auth.password: the file is missing")
        return "secret"

    async def main() -> None:
        client = EtcdClient([server.endpoint], tls=server.tls, user="mesh", password=read)
        with pytest.raises(Unavailable, match="the file is missing"):
            await client.get(b"/mesh/k", timeout=1.0)
        there.append(True)
        await client.get(b"/mesh/k")
        await client.close()

    there: list[bool] = []
    asyncio.run(main())


def test_concurrent_calls_share_one_login(server: Secured) -> None:
    async def main() -> None:
        client = server.client()
        await asyncio.gather(*(client.get(b"/mesh/k") for _ in range(50)))
        token = client._token
        client.forget_token()
        await asyncio.gather(*(client.get(b"/mesh/k") for _ in range(50)))
        assert client._token != token
        await client.close()

    asyncio.run(main())


@pytest.mark.parametrize(("user", "password"), [("mesh", "wrong"), ("nobody", "secret"), (None, None)])
def test_start_raises_unauthorised_for_a_wrong_user(
    server: Secured, mesh: str, user: str | None, password: str | None
) -> None:
    async def main() -> None:
        client = server.client(user, password)
        with pytest.raises(Unauthorised):
            await client.get(b"/mesh/k")
        with pytest.raises(Unauthorised):
            await VehicleMap(client, mesh).start(10.0)
        with pytest.raises(Unauthorised):
            await Announcement(client, mesh, name="e", role="edge", host="h", ports={}).start(10.0)
        await client.close()

    asyncio.run(main())


def test_user_is_refused_outside_its_permissions(server: Secured) -> None:
    async def main() -> None:
        client = server.client()
        with pytest.raises(Unauthorised, match="permission denied"):
            await client.put(b"/other/k", b"1")
        await client.close()

    asyncio.run(main())


def test_client_without_a_certificate_is_refused(server: Secured) -> None:
    async def main() -> None:
        for tls in (EtcdTls(server.folder / "ca.pem"), None):
            client = EtcdClient([server.endpoint], tls=tls)
            with pytest.raises(Unavailable):
                await client.get(b"/mesh/k", timeout=1.0)
            await client.close()

    asyncio.run(main())
