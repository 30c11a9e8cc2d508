"""``mesh ban``, ``mesh kick`` and ``mesh audit`` on a running mesh."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.cli import ban, guarded
from mesh.cli.main import main
from mesh.cluster.run import load_run
from mesh.registry.bans import Ban
from mesh.topology.load import load
from mesh.wire.packets import MQTT5, Connack, Connect, Disconnect
from mesh.wire.reasons import ADMINISTRATIVE_ACTION, BANNED
from tests.cli.running import TOPOLOGY, running_mesh
from tests.support.bare import Bare
from tests.support.loop import run

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_mesh(tmp_path_factory.mktemp("mesh")) as file:
        yield str(file)


def port_of(mesh: str) -> int:
    return load(Path(mesh)).front_doors[0].listen[0].address.port


async def connect(mesh: str, vehicle: str) -> Bare:
    client = await Bare(MQTT5).connect(port_of(mesh))
    client.send(Connect(MQTT5, vehicle, username=vehicle))
    return client


def test_bans_are_added_listed_and_removed(mesh: str, capsys: Captured) -> None:
    at = ["--topology", mesh]
    assert main(["ban", "list", *at]) == 0
    assert capsys.readouterr().out == "no bans\n"
    assert main(["ban", "add", "vehicle", "CAR-1", "--reason", "stolen", "--for", "2h", *at]) == 0
    assert capsys.readouterr().out.startswith("banned: vehicle CAR-1 (stolen), until 2")
    assert main(["ban", "add", "client-id", "a/b", *at]) == 0
    assert main(["ban", "add", "address", "203.0.113.9/24", "--json", *at]) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert made["value"] == "203.0.113.0/24"
    assert made["expires"] == 0
    assert main(["ban", "list", "--json", *at]) == 0
    found = {(ban["kind"], ban["value"]): ban for ban in json.loads(capsys.readouterr().out)}
    assert set(found) == {("vehicle", "CAR-1"), ("client_id", "a/b"), ("address", "203.0.113.0/24")}
    car = found["vehicle", "CAR-1"]
    assert car["reason"] == "stolen"
    assert "@" in car["by"]
    assert car["expires"] - car["since"] == pytest.approx(7200)
    assert main(["ban", "list", *at]) == 0
    assert "client-id a/b, for ever, by " in capsys.readouterr().out
    for kind, value in (("vehicle", "CAR-1"), ("client-id", "a/b"), ("address", "203.0.113.77/24")):
        assert main(["ban", "remove", kind, value, *at]) == 0
    capsys.readouterr()
    assert main(["ban", "remove", "vehicle", "CAR-1", "--json", *at]) == 4
    assert json.loads(capsys.readouterr().out) == {"kind": "vehicle", "value": "CAR-1", "removed": False}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ban", "add"], "write what to add"),
        (["ban", "add", "vehicle"], "write what to add"),
        (["ban", "add", "address", "here"], "'here' is no address or network"),
        (["ban", "add", "fingerprint", "ab"], "64 hexadecimal digits"),
        (["ban", "add", "vehicle", "CAR", "--reason", "a\nb"], "in one line"),
        (["ban", "add", "client-id", ""], "a client id has 1 to 512 bytes of UTF-8"),
        (["ban", "add", "vehicle", "x" * 513], "a vehicle has 1 to 512 bytes"),
        (["ban", "add", "vehicle", "\udcff"], "of UTF-8"),
        (["kick", ""], "a vehicle has 1 to 512 bytes of UTF-8"),
        (["kick", "--client-id", "a\udcff"], "a client id has 1 to 512 bytes of UTF-8"),
        (["ban", "remove", "vehicle", "CAR", "--for", "2h"], "are for 'mesh ban add'"),
        (["ban", "list", "vehicle"], "it takes no kind"),
        (["kick"], "write one of"),
        (["kick", "CAR", "--client-id", "x"], "write one of"),
    ],
)
def test_a_wrong_command_line_says_what_is_right(mesh: str, capsys: Captured, words: list[str], said: str) -> None:
    assert main([*words, "--topology", mesh]) == 2
    assert said in capsys.readouterr().err


def test_values_that_would_deceive_the_reader_are_shown_in_quotes_and_no_terminal_is_changed(
    mesh: str, capsys: Captured
) -> None:
    at = ["--topology", mesh]
    values = {
        "a b": "'a b'", " a": "' a'", "a\x1b[31m": "'a\\x1b[31m'", "a\u202eb": "'a\\u202eb'",
        "Zo\u00eb/1": "Zo\u00eb/1",
    }  # fmt: skip
    for value in values:
        assert main(["ban", "add", "client_id", value, *at]) == 0
    assert main(["ban", "list", *at]) == 0
    assert main(["audit", *at]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    for value, shown in values.items():
        assert out.count(f"client-id {shown}, for ever") == 3  # the answer, the list and the log
        assert main(["ban", "remove", "client-id", value, *at]) == 0


def test_a_ban_that_no_client_can_have_is_doubted(mesh: str, capsys: Captured) -> None:
    at = ["--topology", mesh]
    for value, doubted in (("CAR-1", False), ("car-1", True), ("CAR 1", True)):
        assert main(["ban", "add", "vehicle", value, *at]) == 0
        assert ("identity.pattern is [A-Z0-9-]{3,32}" in capsys.readouterr().err) is doubted
        assert main(["ban", "remove", "vehicle", value, *at]) == 0
    assert main(["ban", "add", "serial", "0a", *at]) == 0
    assert capsys.readouterr().err == ""
    assert main(["ban", "remove", "serial", "0a", *at]) == 0


def test_a_ban_of_a_certificate_names_the_listeners_that_do_not_know_it(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(TOPOLOGY.format(door=21883, core=21884, identity=", providers: [anonymous]").replace(
        'mqtt: "127.0.0.1:21883"', 'mqtt: "127.0.0.1:21883", proxy: [127.0.0.0/8]'
    ))  # fmt: skip
    topology = load(file)
    for kind in ("serial", "fingerprint"):
        (doubt,) = ban._doubts(topology, Ban(kind, "0a", "", "", 0.0))
        assert doubt.startswith("not at mqtt://127.0.0.1:21883: a load balancer that ends TLS")
    assert list(ban._doubts(topology, Ban("address", "192.0.2.7", "", "", 0.0))) == []


@pytest.mark.parametrize("duration", ["0s", "500ms", "soon", "36501d", "100000000d"])
def test_a_ban_lasts_from_a_second_to_a_hundred_years(mesh: str, duration: str) -> None:
    with pytest.raises(SystemExit):
        main(["ban", "add", "vehicle", "CAR", "--for", duration, "--topology", mesh])


def test_a_kicked_vehicle_may_connect_again_and_a_banned_one_not(mesh: str, capsys: Captured) -> None:
    def command(*words: str) -> str:
        assert main([*words, "--topology", mesh]) == 0
        return capsys.readouterr().out

    async def live() -> Bare:
        client = await connect(mesh, "CAR-9")
        assert (await client.wait(Connack)).reason == 0
        return client

    async def told(client: Bare) -> int:
        found = (await client.wait(Disconnect)).reason
        await client.wait_closed()
        return found

    async def scenario() -> None:
        client = await live()
        said = json.loads(await asyncio.to_thread(command, "kick", "CAR-9", "--json"))
        assert said == {
            "kind": "vehicle", "value": "CAR-9", "connections": 1, "ended": {"door": 1, "core": 0}, "silent": [],
        }  # fmt: skip
        assert await told(client) == ADMINISTRATIVE_ACTION
        client = await live()
        await asyncio.to_thread(command, "ban", "add", "vehicle", "CAR-9")
        assert await told(client) == ADMINISTRATIVE_ACTION
        assert (await (await connect(mesh, "CAR-9")).wait(Connack)).reason == BANNED
        assert await asyncio.to_thread(command, "kick", "CAR-9") == "vehicle CAR-9: 0 connections ended\n"
        await asyncio.to_thread(command, "ban", "remove", "vehicle", "CAR-9")

    run(scenario())


def test_the_audit_log_shows_who_changed_what_and_no_secret(mesh: str, capsys: Captured) -> None:
    at = ["--topology", mesh]
    assert main(["ban", "add", "user", "control", *at]) == 0
    assert main(["ban", "remove", "user", "control", *at]) == 0
    assert main(["log-level", "debug", "--node", "edge-1", *at]) == 0
    file = Path(mesh)
    file.write_text(file.read_text().replace("password: secret", "password: hidden-7"))
    file.chmod(0o600)
    assert main(["up", mesh]) == 0
    capsys.readouterr()
    assert main(["audit", "--json", *at]) == 0
    text = capsys.readouterr().out
    acts = json.loads(text)
    assert [one["command"] for one in acts[:4]] == ["mesh up", "mesh log-level", "mesh ban remove", "mesh ban add"]
    assert acts[3]["what"] == "user control, for ever"
    assert "edge-1" in acts[1]["what"]
    assert "password" in acts[0]["what"]
    assert all(one["by"] and one["host"] for one in acts)
    assert "hidden-7" not in text
    assert "secret" not in text.replace("secret:", "")
    assert main(["audit", *at]) == 0
    assert "mesh ban add: user control, for ever" in capsys.readouterr().out


def test_changes_of_passwords_and_of_the_secret_are_in_the_audit_log(tmp_path: Path, capsys: Captured) -> None:
    passwords, other = tmp_path / "passwords.txt", tmp_path / "other.txt"
    assert main(["passwd", "add", str(passwords), "CAR-1", "--generate"]) == 0
    provider = ", providers: [{name: file, password: passwords.txt}]"
    with running_mesh(tmp_path, identity=provider) as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(guarded, "running", lambda: [load_run(tmp_path / "data")])
        assert main(["passwd", "add", str(passwords), "CAR-2", "CAR-3", "--generate"]) == 0
        made = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
        assert main(["passwd", "add", str(other), "CAR-2", "--generate"]) == 0
        assert main(["passwd", "remove", str(passwords), "CAR-1"]) == 0
        assert main(["passwd", "list", str(passwords)]) == 0
        assert main(["secret", "rotate", str(file)]) == 0
        capsys.readouterr()
        assert main(["audit", str(file), "--json"]) == 0
        text = capsys.readouterr().out
        assert [(one["command"], one["what"]) for one in json.loads(text)] == [
            ("mesh secret rotate", "the secret of the mesh was exchanged"),
            ("mesh passwd remove", f"CAR-1 in {passwords}"),
            ("mesh passwd add", f"CAR-2, CAR-3 in {passwords}"),
        ]
        assert not any(password in text for password in made)
