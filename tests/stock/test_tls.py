"""Stock clients over TLS, with certificates that the front door and the core require."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509

from tests.stock.makers import Dialect, Makers
from tests.stock.mosquitto import Mosquitto
from tests.stock.peer import Files
from tests.stock.way import Way, way_in
from tests.support.certificates import Authority, put
from tests.support.ports import free_ports
from tests.support.processes import Processes

pytestmark = pytest.mark.e2e


class Secured:
    """A mesh with a TLS listener at its door and at its core; the server's key is ECDSA or RSA, as the client asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = Authority()
        here = [x509.IPAddress(ip_address("127.0.0.1"))]
        pairs = []
        for kind in ("ecdsa", "rsa"):
            authority.issue("server", names=here, kind=kind, server=True).write(folder, kind)
            pairs.append(f"cert: {folder / kind}.pem, key: {folder / kind}.key")
        self.ca = put(folder / "ca.pem", authority.pem())
        self.client = Files(self.ca, *authority.issue("VIN7").write(folder, "client"))
        self.foreign = Files(self.ca, *Authority().issue("VIN7").write(folder, "foreign"))
        self.vehicles, self.backends = free_ports(2)
        tls = f"{{{pairs[0]}, more: [{{{pairs[1]}}}], client: required, ca: {self.ca}}}"
        listeners = [f', {{mqtts: "127.0.0.1:{port}", tls: {tls}}}' for port in (self.vehicles, self.backends)]
        self.mesh = Processes(folder / "tls", ["edge-1"], more_vehicles=listeners[0], more_backends=listeners[1])


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("stock")
    (folder / "tls").mkdir()
    made = Secured(folder)
    with made.mesh:
        yield made


@pytest.fixture
def way(request: pytest.FixtureRequest, secured: Secured, numbers: Iterator[int]) -> Way:
    return way_in(request.param, secured.vehicles, secured.backends, next(numbers))


def test_clients_talk_over_tls(makers: Makers, secured: Secured, way: Way, dialect: Dialect) -> None:
    publisher = makers.join(dialect, way, tls=secured.client)
    receiver = makers.join(dialect, way, tls=secured.client)
    receiver.subscribe(way.topic("data"))
    payloads = [b"first", bytes(200_000), b"last"]
    publisher.pipeline(way.topic("data"), payloads)
    receiver.expect(3)
    assert receiver.payloads() == payloads


OLD = ("--tls-version", "tlsv1.2")


@pytest.mark.parametrize("options", [(), OLD, (*OLD, "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256")])
def test_mosquitto_talks_over_tls(
    mosquitto: Mosquitto, secured: Secured, way: Way, version: str, options: tuple[str, ...]
) -> None:
    none = ("--cafile", str(secured.ca), *options)
    files, foreign = (
        (*none, "--cert", str(one.cert), "--key", str(one.key)) for one in (secured.client, secured.foreign)
    )
    receiver = mosquitto.sub(way, version, "-q", "1", "-t", way.topic("data"), *files)
    mosquitto.sent(way, version, "-q", "1", "-t", way.topic("data"), "-m", "hello", *files)
    assert receiver.expect(1)[0].payload == b"hello"
    for refused in (none, foreign):
        assert mosquitto.pub(way, version, "-t", way.topic("data"), "-m", "no", *refused).returncode != 0
