"""topology/internet.yaml, started as it is: who may come in from the internet, and who may not."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from mesh.cli.main import main
from mesh.policy.hashes import MADE, make_hash
from mesh.policy.passwordfile import read_passwords, write_passwords
from tests.support.examples import example, prepared
from tests.support.ports import free_ports
from tests.support.processes import Processes
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.e2e

ORIGIN = "https://fleet.example.com"
VERSIONS = ["mqttv311", "mqttv5"]


class Town:
    """The mesh, its certificates and passwords."""

    def __init__(self, home: Path) -> None:
        self.vehicles, self.web, self.backends, console = free_ports(4)
        self.certs = home / ".mesh" / "internet-certs"
        ports = {8883: self.vehicles, 8443: self.web, 8884: self.backends, 8080: console, 9464: 0}
        file = prepared(example("internet.yaml"), home, ports)
        self.app = (home / ".mesh" / "internet.app").read_text().strip()
        hashes = home / ".mesh" / "internet.passwords"
        write_passwords(hashes, {**read_passwords(hashes), "VIN-4": make_hash(b"generated", MADE)})
        self.mesh = Processes(home, [], given=file)

    def run(self, program: str, port: int, *more: str) -> subprocess.CompletedProcess[str]:
        """Run one of Mosquitto's programs to its end."""
        place = ["-h", "127.0.0.1", "-p", str(port), "--cafile", str(self.certs / "ca.pem")]
        return subprocess.run([program, *place, *more], capture_output=True, text=True, timeout=PATIENCE, check=False)

    def vehicle(self, program: str, name: str, *more: str) -> subprocess.CompletedProcess[str]:
        """A vehicle with its certificate."""
        own = self.certs / "vehicle" / name
        return self.run(program, self.vehicles, "--cert", f"{own}.pem", "--key", f"{own}.key", "-i", name, *more)

    def backend(self, program: str, *more: str) -> subprocess.CompletedProcess[str]:
        return self.run(program, self.backends, "-u", "app", "-P", self.app, *more)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = Town(tmp_path_factory.mktemp("internet"))
    with town.mesh:
        yield town


@pytest.mark.parametrize("version", VERSIONS)
def test_a_vehicle_with_a_certificate_and_a_back_end_reach_each_other(town: Town, version: str) -> None:
    topic, command = f"vehicles/VIN-1/status/{version}", f"vehicles/VIN-1/cmd/{version}"
    sent = town.vehicle("mosquitto_pub", "VIN-1", "-V", version, "-q", "1", "-r", "-t", topic, "-m", "report")
    assert sent.returncode == 0, sent.stderr
    read = town.backend("mosquitto_sub", "-V", version, "-q", "1", "-C", "1", "-t", topic)
    assert (read.returncode, read.stdout) == (0, "report\n"), read.stderr
    sent = town.backend("mosquitto_pub", "-V", version, "-q", "1", "-r", "-t", command, "-m", "horn")
    assert sent.returncode == 0, sent.stderr
    read = town.vehicle("mosquitto_sub", "VIN-1", "-V", version, "-q", "1", "-C", "1", "-t", command)
    assert (read.returncode, read.stdout) == (0, "horn\n"), read.stderr


@pytest.mark.parametrize(("version", "code"), [("mqttv311", 5), ("mqttv5", 135)])
@pytest.mark.parametrize("password", ["none", "right"])
def test_a_vehicle_without_a_certificate_is_refused(town: Town, version: str, code: int, password: str) -> None:
    """Also with a password that is right: this listener asks for none."""
    shown = ["-u", "VIN-4", "-P", "generated"] if password == "right" else []
    found = town.run(
        "mosquitto_pub", town.vehicles, "-V", version, "-i", "VIN-4", *shown, "-t", "vehicles/VIN-4/x", "-m", "x"
    )
    assert found.returncode == code, found.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_a_revoked_vehicle_is_refused_and_others_are_not(town: Town, version: str, tmp_path: Path) -> None:
    name = f"VIN-R{version[-1]}"
    assert main(["certs", "vehicle", "--folder", str(town.certs), name]) == 0
    own = ("-V", version, "-q", "1", "-m", "x", "-t")
    sent = town.vehicle("mosquitto_pub", name, *own, f"vehicles/{name}/x")
    assert sent.returncode == 0, sent.stderr
    cert, key = (shutil.copy(town.certs / "vehicle" / f"{name}{end}", tmp_path) for end in (".pem", ".key"))
    assert main(["certs", "revoke", "--folder", str(town.certs), f"vehicle/{name}"]) == 0
    shown = ("--cert", str(cert), "--key", str(key), "-i", name)
    wait_until(
        lambda: town.run("mosquitto_pub", town.vehicles, *shown, *own, f"vehicles/{name}/x").returncode != 0,
        "the refusal of a revoked certificate",
    )
    sent = town.vehicle("mosquitto_pub", "VIN-2", *own, "vehicles/VIN-2/x")
    assert sent.returncode == 0, sent.stderr


@pytest.mark.parametrize(("version", "code"), [("mqttv311", 4), ("mqttv5", 134)])
@pytest.mark.parametrize("shown", [(), ("-u", "app", "-P", "wrong")])
def test_a_back_end_without_the_right_password_is_refused(
    town: Town, version: str, code: int, shown: tuple[str, ...]
) -> None:
    found = town.run("mosquitto_pub", town.backends, "-V", version, *shown, "-t", "vehicles/VIN-1/cmd/x", "-m", "x")
    assert found.returncode == code, found.stderr


def over_wss(town: Town, origin: str, password: str) -> int | None:
    """The code that a client with a password gets over WebSocket; ``None`` if there is no WebSocket."""
    client = paho.Client(
        CallbackAPIVersion.VERSION2, "VIN-4", transport="websockets", protocol=MQTTProtocolVersion.MQTTv5,
        reconnect_on_failure=False,
    )  # fmt: skip
    codes: list[int] = []
    answered = threading.Event()

    def on_connect(client: paho.Client, data: Any, flags: Any, code: Any, properties: Any) -> None:
        codes.append(code.value)
        answered.set()

    client.on_connect = on_connect
    client.tls_set(str(town.certs / "ca.pem"))
    client.ws_set_options("/mqtt", {"Origin": origin})
    client.username_pw_set("VIN-4", password)
    try:
        client.connect("127.0.0.1", town.web)
    except paho.WebsocketConnectionError:
        return None
    client.loop_start()
    assert answered.wait(PATIENCE), "no answer to CONNECT"
    client.disconnect()
    client.loop_stop()
    return codes[0]


@pytest.mark.parametrize(
    ("origin", "password", "code"),
    [(ORIGIN, "generated", 0), (ORIGIN, "wrong", 0x86), ("https://other.example.com", "generated", None)],
)
def test_pages_of_the_origin_connect_with_a_password(town: Town, origin: str, password: str, code: int | None) -> None:
    assert over_wss(town, origin, password) == code
