"""HAProxy before the mesh: it names its clients with the PROXY protocol, and ends TLS or passes it through."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from tests.stock.makers import Makers
from tests.stock.peer import V5, V311, Files
from tests.stock.way import Way
from tests.support.certificates import Authority, put
from tests.support.ports import free_ports
from tests.support.processes import Processes
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.e2e

CLIENT = "127.0.0.2"  # HAProxy itself connects from 127.0.0.1
HERE = "proxy: [127.0.0.1/32]"
IDENTITY = (
    '{from: username, pattern: "[A-Za-z0-9_-]{1,64}", '
    'providers: [{name: cert, certificate: common_name, template: "VIN-{vehicle}"}, anonymous]}'
)
TIMES = "timeout connect 5s\n  timeout client 60s\n  timeout server 60s"
PROTOCOLS = pytest.mark.parametrize("protocol", [V311, V5])


class Balanced:
    """A mesh with one edge, and HAProxy before its front door and its core. ``ports`` are HAProxy's, by name:

    ``v1``, ``v2``: TCP to the front door and the core; ``ends``: TLS ends here, and the header has the certificate's
    name; ``through``: TLS ends at the front door."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = Authority()
        here = [x509.IPAddress(ip_address("127.0.0.1"))]
        cert, key = authority.issue("server", names=here, server=True).write(folder, "server")
        put(folder / "both.pem", cert.read_bytes() + key.read_bytes())
        self.ca = put(folder / "ca.pem", authority.pem())
        self.authority = authority
        names = ("v1", "v2", "ends", "through")
        found = free_ports(2 * len(names))
        self.ports = dict(zip(names, found, strict=False))
        self.behind = dict(zip(names, found[len(names) :], strict=True))
        tls = f"tls: {{cert: {cert}, key: {key}, client: required, ca: {self.ca}}}"
        doors = (
            f'{{mqtt: "127.0.0.1:{self.behind["v1"]}", {HERE}, identify: [anonymous]}}',
            f'{{mqtt: "127.0.0.1:{self.behind["ends"]}", {HERE}, identify: [cert]}}',
            f'{{mqtts: "127.0.0.1:{self.behind["through"]}", {HERE}, identify: [cert], {tls}}}',
        )
        core = f', {{mqtt: "127.0.0.1:{self.behind["v2"]}", {HERE}}}'
        self.mesh = Processes(
            folder / "mesh", ["edge-1"], identity=IDENTITY,
            more_vehicles="".join(f", {one}" for one in doors), more_backends=core,
        )  # fmt: skip

    def files(self, name: str) -> Files:
        """The files of a client whose certificate has this common name."""
        return Files(self.ca, *self.authority.issue(name).write(self.folder, name))

    @contextlib.contextmanager
    def haproxy(self) -> Iterator[None]:
        """Run HAProxy."""
        secure = f"ssl crt {self.folder / 'both.pem'} ca-file {self.ca} verify required"
        sections = (
            ("v1", "", "send-proxy"),
            ("v2", "", "send-proxy-v2 proxy-v2-options crc32c,unique-id"),
            ("ends", secure, "send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,ssl-cipher,crc32c"),
            ("through", "", "check check-send-proxy inter 200ms send-proxy-v2"),
        )
        text = f"defaults\n  mode tcp\n  {TIMES}\n" + "".join(
            f"listen {name}\n  bind 127.0.0.1:{self.ports[name]} {bind}\n"
            f"  server one 127.0.0.1:{self.behind[name]} {server}\n"
            for name, bind, server in sections
        )
        file = self.folder / "haproxy.cfg"
        file.write_text(text)
        log = self.folder / "haproxy.log"
        with log.open("wb") as output:
            running = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stdout=output, stderr=output)
        try:
            wait_until(lambda: running.poll() is not None or _open(self.ports["v1"]), "HAProxy")
            assert running.poll() is None, log.read_text()
            yield
        finally:
            running.terminate()
            running.wait(PATIENCE)


def _open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    folder = tmp_path_factory.mktemp("haproxy")
    (folder / "mesh").mkdir()
    made = Balanced(folder)
    with made.mesh, made.haproxy():
        yield made


@pytest.mark.parametrize(("name", "node"), [("v1", "door"), ("v2", "core")])
def test_the_node_knows_the_client_s_address(balanced: Balanced, name: str, node: str) -> None:
    with socket.create_connection(("127.0.0.1", balanced.ports[name]), PATIENCE, (CLIENT, 0)) as client:
        own = client.getsockname()[1]
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
    wait_until(lambda: f"connection of {CLIENT}:{own} closed" in balanced.mesh.log(node), "the line in the log")


@PROTOCOLS
def test_clients_talk_through_haproxy(balanced: Balanced, makers: Makers, protocol: int) -> None:
    vehicle = Way("door", balanced.ports["v1"], f"P{protocol}", f"vehicles/P{protocol}")
    core = Way("core", balanced.ports["v2"], None, f"vehicles/P{protocol}")
    backend, car = makers.join(("paho", protocol), core), makers.join(("mqttjs", protocol), vehicle)
    backend.subscribe(core.topic("data"))
    payloads = [b"first", bytes(200_000), b"last"]
    car.pipeline(vehicle.topic("data"), payloads)
    backend.expect(3)
    assert backend.payloads() == payloads


@PROTOCOLS
@pytest.mark.parametrize("name", ["ends", "through"])
def test_the_certificate_s_name_is_the_vehicle(balanced: Balanced, makers: Makers, name: str, protocol: int) -> None:
    vehicle = f"{name}{protocol}"
    way = Way("door", balanced.ports[name], "another", f"vehicles/{vehicle}", tls=balanced.files(f"VIN-{vehicle}"))
    core = Way("core", balanced.ports["v2"], None, f"vehicles/{vehicle}")
    backend, car = makers.join(("paho", protocol), core), makers.join(("mqttjs", protocol), way)
    backend.subscribe(core.topic("data"))
    car.publish(way.topic("data"), b"hello")
    assert backend.expect(1)[0].topic == f"vehicles/{vehicle}/data"


def test_health_checks_are_no_clients(balanced: Balanced) -> None:
    log = len(balanced.mesh.log("door"))
    wait_until(lambda: "connection of 127.0.0.1" in balanced.mesh.log("door")[log:], "two checks")
    assert "PROXY protocol" not in balanced.mesh.log("door")
