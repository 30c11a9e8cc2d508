"""``mesh where``, ``pub`` and ``sub`` on a running mesh."""

from __future__ import annotations

import io
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from mesh.cli.main import main
from mesh.topology.load import load
from tests.cli.running import running_mesh
from tests.support.waiting import wait_until

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_mesh(tmp_path_factory.mktemp("mesh")) as file:
        yield str(file)


def known(mesh: str, vehicle: str) -> None:
    """Have the vehicle connect once."""
    assert main(["sub", f"vehicles/{vehicle}/cmd/#", "--vehicle", vehicle, "--timeout", "0.1", "--topology", mesh]) == 0


def test_where_shows_the_edge(mesh: str, capsys: Captured) -> None:
    known(mesh, "CAR-1")
    assert main(["where", "CAR-1", "--topology", mesh]) == 0
    assert capsys.readouterr().out == "CAR-1 is on edge-1 (pool standard, epoch 1)\n"
    assert main(["where", "CAR-1", "--topology", mesh, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("revision") > 0
    assert found.pop("kept_by") == []
    assert found == {"mesh": "commands", "vehicle": "CAR-1", "edge": "edge-1", "pool": "standard", "epoch": 1}


def test_where_ends_with_4_for_a_vehicle_without_an_edge(mesh: str, capsys: Captured) -> None:
    assert main(["where", "NOBODY", "--topology", mesh]) == 4
    assert "NOBODY has no edge yet" in capsys.readouterr().err
    assert main(["where", "NOBODY", "--topology", mesh, "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["edge"] is None


def test_where_explains_an_invalid_name(mesh: str, capsys: Captured) -> None:
    assert main(["where", "a/b", "--topology", mesh]) == 1
    assert "must have no '/'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["where", "CAR-1"], ["pub", "a", "b"], ["sub", "a"]])
def test_no_such_mesh_ends_with_3(words: list[str], tmp_path: Path, mesh: str, capsys: Captured) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(Path(mesh).read_text())
    assert main([*words, "--topology", str(other)]) == 3
    assert "mesh 'commands' does not run" in capsys.readouterr().err


def test_a_command_waits_for_its_vehicle(mesh: str, capsys: Captured) -> None:
    assert main(["pub", "vehicles/CAR-2/cmd/x", "number {n}", "--count", "2", "--topology", mesh]) == 0
    assert capsys.readouterr().out == "2 accepted: vehicles/CAR-2/cmd/x, QoS 1\n"
    words = ["sub", "vehicles/CAR-2/cmd/#", "--vehicle", "CAR-2", "--count", "2", "--timeout", "30", "--topology", mesh]
    assert main(words) == 0
    assert capsys.readouterr().out == "vehicles/CAR-2/cmd/x number 1\nvehicles/CAR-2/cmd/x number 2\n"


def test_a_vehicles_report_reaches_a_back_end(mesh: str, capsys: Captured) -> None:
    words = ["sub", "vehicles/+/report", "--user", "control", "--json", "--count", "1", "--timeout", "60"]
    codes: list[int] = []
    back_end = threading.Thread(target=lambda: codes.append(main([*words, "--topology", mesh])))
    back_end.start()
    report = ["pub", "vehicles/CAR-3/report", "42", "--vehicle", "CAR-3", "--trace", "--json", "--topology", mesh]
    wait_until(lambda: main(report) == 0)  # the exit code is 4 until the subscription exists
    back_end.join(30)
    assert codes == [0]
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    got = next(line for line in said if "payload" in line)
    assert (got["topic"], got["payload"], got["qos"]) == ("vehicles/CAR-3/report", "42", 1)
    traces = [trace for line in said for trace in line.get("traces", [])]
    assert any(name == "traceparent" and value[3:35] in traces for name, value in got["properties"])


def test_pub_sends_standard_input(mesh: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\x00")))
    assert main(["pub", "vehicles/CAR-4/cmd", "--topology", mesh]) == 0
    capsys.readouterr()
    words = ["sub", "vehicles/CAR-4/cmd/#", "--vehicle", "CAR-4", "--count", "1", "--timeout", "30", "--json"]
    assert main([*words, "--topology", mesh]) == 0
    assert json.loads(capsys.readouterr().out)["payload_hex"] == "ff00"


def test_pub_ends_with_4_without_a_receiver(mesh: str, capsys: Captured) -> None:
    known(mesh, "CAR-5")
    for words, hint in (
        (["vehicles/CAR-5/other"], "vehicle CAR-5 does not subscribe to this topic, and no inbox keeps it"),
        (["fleet/news"], "it is no topic of a vehicle"),
        (["vehicles/CAR-5/unheard", "--vehicle", "CAR-5"], "no back end subscribes to it"),
    ):
        assert main(["pub", words[0], "x", *words[1:], "--topology", mesh]) == 4
        said = capsys.readouterr().err
        assert "0x10 (no matching subscribers)" in said
        assert hint in said
    assert main(["pub", "fleet/news", "x", "--json", "--topology", mesh]) == 4
    report = json.loads(capsys.readouterr().out)
    assert (report["accepted"], report["nobody"], report["reasons"]) == (0, 1, {"0x10": 1})


def test_pub_and_sub_end_with_1_when_refused(mesh: str, capsys: Captured) -> None:
    words = ["pub", "vehicles/CAR-7/report", "x", "--vehicle", "CAR-6", "--topology", mesh]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "0x87 (not authorized)" in said
    assert "may publish below vehicles/CAR-6/# only" in said
    assert main([*words, "--qos", "2"]) == 1
    capsys.readouterr()
    assert main(["sub", "vehicles/CAR-7/#", "--vehicle", "CAR-6", "--topology", mesh]) == 1
    assert "vehicles/CAR-7/# was refused: 0x87" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["pub", "a/#", "x"], "'a/#' cannot be published to"),
        (["pub", "a", "x", "--vehicle", "a b"], "'a b' is no vehicle of mesh 'commands'"),
        (["pub", "a", "x", "--vehicle", "CAR-1", "--user", "u"], "give one of them"),
        (["pub", "a", "x", "--at", "here"], "--at takes HOST:PORT"),
        (["pub", "a", "x", "--at", "127.0.0.1:1"], "cannot connect to 127.0.0.1:1"),
        (["sub", "a/#/b"], "a/#/b cannot be subscribed to"),
    ],
)
def test_impossible_requests_are_explained(words: list[str], error: str, mesh: str, capsys: Captured) -> None:
    assert main([*words, "--topology", mesh]) == 1
    assert error in capsys.readouterr().err


def test_sub_ends_with_1_after_too_few_messages(mesh: str) -> None:
    assert main(["sub", "nothing/here", "--count", "1", "--timeout", "0.2", "--topology", mesh]) == 1
    assert main(["sub", "nothing/here", "--timeout", "0.2", "--topology", mesh]) == 0


def test_pub_disturbs_no_other_client_of_the_vehicle(mesh: str, capsys: Captured) -> None:
    lost: list[object] = []
    vehicle = mqtt.Client(
        CallbackAPIVersion.VERSION2, "own", protocol=MQTTProtocolVersion.MQTTv311, clean_session=False
    )
    vehicle.username_pw_set("CAR-8")
    vehicle.on_disconnect = lambda *reason: lost.append(reason)
    door = load(mesh).front_doors[0].listen[0].address
    vehicle.connect(door.host, door.port)
    vehicle.loop_start()
    try:
        wait_until(vehicle.is_connected)
        assert main(["pub", "vehicles/CAR-8/unheard", "x", "--vehicle", "CAR-8", "--topology", mesh]) == 4
        assert vehicle.is_connected()
        assert not lost
    finally:
        vehicle.disconnect()
        vehicle.loop_stop()
