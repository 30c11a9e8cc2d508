"""topology/client-certificates.yaml, started as it is: the clients of others connect by their certificates."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from gmqtt import Client as Gmqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from mesh.cli.main import main
from mesh.wire.encode import encode
from mesh.wire.packets import Connect
from tests.support.certificates import Authority
from tests.support.examples import example, prepared
from tests.support.ports import free_ports
from tests.support.processes import Processes
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.e2e

VERSIONS = [4, 5]
NOT_AUTHORIZED = 0x87  # paho shows a return code of 3.1.1 as the code of 5.0; Mosquitto's programs show it as it is
WRONG_CLIENT_ID = 0x85


class Town:
    """The mesh, its certificates, and how clients find both."""

    def __init__(self, home: Path) -> None:
        self.vehicles, self.backends = free_ports(2)
        self.home = home
        self.certs = home / ".mesh" / "certs"
        file = prepared(example("client-certificates.yaml"), home, {8883: self.vehicles, 1884: self.backends})
        self.mesh = Processes(home, [], given=file)

    def certs_do(self, *words: str) -> None:
        before = Path.cwd()
        os.chdir(self.home)
        try:
            assert main(["certs", *words, "--folder", str(self.certs)]) == 0
        finally:
            os.chdir(before)

    def make(self, *vehicles: str) -> None:
        self.certs_do("vehicle", *vehicles)

    def revoke(self, vehicle: str) -> None:
        self.certs_do("revoke", f"vehicle/{vehicle}")

    def files(self, vehicle: str) -> tuple[str, str]:
        return str(self.certs / "vehicle" / f"{vehicle}.pem"), str(self.certs / "vehicle" / f"{vehicle}.key")

    def context(self, vehicle: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.certs / "ca.pem"))
        if vehicle:
            context.load_cert_chain(*self.files(vehicle))
        return context

    def mosquitto(self, program: str, vehicle: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Run one of Mosquitto's programs to its end."""
        shown = ["--cert", self.files(vehicle)[0], "--key", self.files(vehicle)[1]] if vehicle else []
        place = ["-h", "127.0.0.1", "-p", str(self.vehicles), "--cafile", str(self.certs / "ca.pem")]
        return subprocess.run(
            [program, *place, *shown, *more], capture_output=True, text=True, timeout=PATIENCE, check=False
        )


class Paho:
    """A client with the certificate of ``vehicle``; without one if that is empty."""

    def __init__(self, town: Town, vehicle: str, version: int, client_id: str = "", username: str = "") -> None:
        self.code: int | None = None
        self.ended: list[int] = []
        self.received: list[tuple[str, bytes]] = []
        self._answered = threading.Event()
        self._done: set[int] = set()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id or vehicle or "stranger", protocol=MQTTProtocolVersion(version),
            reconnect_on_failure=False,
        )  # fmt: skip
        if username:
            self.client.username_pw_set(username, "any")
        self.client.tls_set_context(town.context(vehicle))
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_publish = lambda client, data, mid, code, properties: self._done.add(mid)
        self.client.on_message = lambda client, data, message: self.received.append((message.topic, message.payload))
        self.client.on_subscribe = lambda *_: self._done.add(-1)
        self.client.connect("127.0.0.1", town.vehicles)
        self.client.loop_start()
        assert self._answered.wait(PATIENCE), "no answer to CONNECT"

    def _on_connect(self, client: paho.Client, data: Any, flags: Any, code: Any, properties: Any) -> None:
        self.code = code.value
        self._answered.set()

    def _on_disconnect(self, client: paho.Client, data: Any, flags: Any, code: Any, properties: Any) -> None:
        self.ended.append(code.value)

    def subscribe(self, filter: str) -> None:
        self.client.subscribe(filter, 1)
        wait_until(lambda: -1 in self._done, "SUBACK")

    def publish(self, topic: str, payload: bytes) -> None:
        mid = self.client.publish(topic, payload, 1).mid
        wait_until(lambda: mid in self._done, "PUBACK")

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = Town(tmp_path_factory.mktemp("certified"))
    with town.mesh:
        yield town


@pytest.mark.parametrize("version", VERSIONS)
def test_the_common_name_is_the_vehicle_whatever_the_user_name_says(town: Town, version: int) -> None:
    one = Paho(town, "VIN-1", version, username="VIN-2")
    assert one.code == 0
    one.subscribe("vehicles/VIN-1/#")
    one.publish("vehicles/VIN-1/up", b"mine")
    one.publish("vehicles/VIN-2/up", b"not mine")
    wait_until(lambda: one.received == [("vehicles/VIN-1/up", b"mine")], "its own message, and no other")
    assert set(town.mesh.owners(["VIN-1"])) == {"VIN-1"}
    one.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("username", ["", "VIN-1"])
def test_a_client_without_a_certificate_is_told_why_it_is_refused(town: Town, version: int, username: str) -> None:
    stranger = Paho(town, "", version, "VIN-1", username)
    assert stranger.code == NOT_AUTHORIZED
    stranger.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_client_ids_are_bound_to_the_vehicle(town: Town, version: int) -> None:
    for client_id, code in (("VIN-1-hu", 0), ("VIN-2", WRONG_CLIENT_ID), ("VIN-10", WRONG_CLIENT_ID)):
        client = Paho(town, "VIN-1", version, client_id)
        assert client.code == code, client_id
        client.close()


def test_mosquittos_programs_connect_and_are_told_the_codes(town: Town) -> None:
    own = ("VIN-2", "-i", "VIN-2", "-t", "vehicles/VIN-2/kept", "-q", "1")
    sent = town.mosquitto("mosquitto_pub", *own, "-V", "mqttv311", "-m", "x", "-r")
    assert sent.returncode == 0, sent.stderr
    read = town.mosquitto("mosquitto_sub", *own, "-V", "mqttv5", "-C", "1")
    assert (read.returncode, read.stdout) == (0, "x\n"), read.stderr
    for version, code in (("mqttv311", 5), ("mqttv5", 135)):
        none = town.mosquitto("mosquitto_pub", "", "-V", version, "-i", "VIN-2", "-t", "t", "-m", "x")
        assert none.returncode == code, none.stderr
    for version, code in (("mqttv311", 2), ("mqttv5", 133)):
        other = town.mosquitto("mosquitto_pub", "VIN-2", "-V", version, "-i", "VIN-1", "-t", "t", "-m", "x")
        assert other.returncode == code, other.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_gmqtt_connects(town: Town, version: int) -> None:
    async def main() -> None:
        client, got = Gmqtt("VIN-2"), asyncio.Event()
        client.on_message = lambda *_: got.set()
        await client.connect("127.0.0.1", town.vehicles, ssl=town.context("VIN-2"), version=version)
        client.subscribe("vehicles/VIN-2/g", qos=1)
        client.publish("vehicles/VIN-2/g", b"x", qos=1)
        async with asyncio.timeout(PATIENCE):
            await got.wait()
        await client.disconnect()

    asyncio.run(main())


def test_a_certificate_of_another_authority_ends_the_handshake(town: Town, tmp_path: Path) -> None:
    cert, key = Authority().issue("VIN-1").write(tmp_path, "VIN-1")
    context = ssl.create_default_context(cafile=str(town.certs / "ca.pem"))
    context.load_cert_chain(cert, key)
    with socket.create_connection(("127.0.0.1", town.vehicles), PATIENCE) as plain:
        try:
            client = context.wrap_socket(plain, server_hostname="127.0.0.1")
            client.sendall(encode(Connect(4, "VIN-1"), 4))
            answer = client.recv(100)
        except (ssl.SSLError, ConnectionError):
            answer = b""
    assert answer == b""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("edge_down", [False, True])
def test_a_revoked_vehicle_is_gone_and_does_not_come_back(town: Town, version: int, edge_down: bool) -> None:
    name = f"VIN-{'DOWN' if edge_down else 'UP'}{version}"
    town.make(name)
    client, bystander = Paho(town, name, version), Paho(town, "VIN-1", version)
    assert (client.code, bystander.code) == (0, 0)
    if edge_down:
        town.mesh.kill(town.mesh.where(name))
    town.revoke(name)
    wait_until(lambda: bool(client.ended), "the end of the connection")
    client.client.loop_stop()
    again = town.mosquitto("mosquitto_pub", name, "-i", name, "-t", f"vehicles/{name}/x", "-m", "x")
    assert again.returncode != 0
    assert bystander.ended == []
    bystander.publish("vehicles/VIN-1/still", b"here")
    bystander.close()
