"""Files of passwords that other programs made, and clients of others that log in with them, at door and core."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from gmqtt import Client as Gmqtt
from gmqtt.mqtt.handler import MQTTConnectError
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from mesh.policy.hashes import make_hash
from mesh.policy.passwordfile import read_passwords, write_passwords
from tests.support.processes import Processes
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.e2e

IDENTITY = "{from: username, providers: [{name: file, password: passwords.txt}]}"
USERS = "{providers: [{name: apps, password: passwords.txt}]}"


class Town:
    """The mesh, and a file of passwords that mosquitto_passwd made."""

    def __init__(self, home: Path) -> None:
        self.file = home / "passwords.txt"
        for form, name in (("sha512-pbkdf2", "V1"), ("sha512", "V2")):
            new = [] if self.file.exists() else ["-c"]
            made = [*new, str(self.file), name, f"secret of {name}"]
            subprocess.run(["mosquitto_passwd", "-H", form, "-b", *made], check=True)
        self.file.chmod(0o600)
        write_passwords(self.file, {**read_passwords(self.file), "V3": make_hash(b"secret of V3")})
        self.mesh = Processes(home, ["edge-1"], identity=IDENTITY, users=USERS)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    town = Town(tmp_path_factory.mktemp("passwords"))
    with town.mesh:
        yield town


@pytest.fixture(params=["core", "door"])
def port(request: pytest.FixtureRequest, town: Town) -> int:
    return town.mesh.backends if request.param == "core" else town.mesh.vehicles


@pytest.mark.parametrize(("version", "wrong"), [("mqttv31", 4), ("mqttv311", 4), ("mqttv5", 134)])
@pytest.mark.parametrize("name", ["V1", "V2", "V3"])
def test_mosquittos_programs_log_in_with_the_file_of_mosquitto(port: int, version: str, wrong: int, name: str) -> None:
    place = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-V", version, "-t", f"vehicles/{name}/x", "-m", "x"]
    for password, code in ((f"secret of {name}", 0), ("secret", wrong)):
        shown = ["-i", f"{name}-{version}", "-u", name, "-P", password]
        done = subprocess.run([*place, *shown], capture_output=True, timeout=PATIENCE, check=False)
        assert done.returncode == code, done.stderr


@pytest.mark.parametrize("version", [4, 5])
def test_paho_logs_in_and_is_closed_when_its_user_is_removed(port: int, town: Town, version: int) -> None:
    name = f"GONE{version}{port}"
    hashes = read_passwords(town.file)
    write_passwords(town.file, {**hashes, name: make_hash(b"right")})
    codes: list[int] = []
    ended: list[int] = []
    answered = threading.Event()

    def on_connect(client: paho.Client, data: Any, flags: Any, code: Any, properties: Any) -> None:
        codes.append(code.value)
        answered.set()

    client = paho.Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTProtocolVersion(version))
    client.username_pw_set(name, "right")
    client.on_connect = on_connect
    client.on_disconnect = lambda client, data, flags, code, properties: ended.append(code.value)
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    wait_until(lambda: 0 in codes, "the login, once the changed file is in force")
    write_passwords(town.file, hashes)
    wait_until(lambda: codes[-1] == 0x86, "the refusal of its next attempt")
    if version == 5:
        assert 0x87 in ended
    client.loop_stop()


@pytest.mark.parametrize("version", [4, 5])
def test_gmqtt_logs_in_by_a_hash_that_takes_long(port: int, version: int) -> None:
    async def main() -> None:
        client, got = Gmqtt(f"g{version}"), asyncio.Event()
        client.on_message = lambda *_: got.set()
        client.set_auth_credentials("V3", "secret of V3")
        await client.connect("127.0.0.1", port, version=version)
        client.subscribe("vehicles/V3/g", qos=1)
        client.publish("vehicles/V3/g", b"x", qos=1)
        async with asyncio.timeout(PATIENCE):
            await got.wait()
        await client.disconnect()
        stranger = Gmqtt("stranger")
        stranger.set_auth_credentials("V9", "secret of V3")
        with pytest.raises(MQTTConnectError):
            await stranger.connect("127.0.0.1", port, version=version)

    asyncio.run(main())
