"""``mesh secret rotate`` exchanges the secret of a running mesh; no client notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.policy.secrets import FILE, SIZE, MeshSecret, begun, read, replace
from mesh.topology.load import load
from mesh.wire.packets import MQTT5, Disconnect, Publish, SubAck, Subscribe, Subscription
from tests.cli.running import running_mesh
from tests.support.bare import Bare
from tests.support.loop import LoopThread

PATIENCE = 60.0


def test_no_client_is_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_mesh(tmp_path) as file:
        topology = load(file)
        secret = topology.data / FILE
        before = read(secret)
        loop = LoopThread()
        try:
            vehicle = loop.run(_vehicle(topology.front_doors[0].listen[0].address.port), PATIENCE)
            assert main(["secret", "rotate", str(file)]) == 0
            out, err = capsys.readouterr()
            assert out.splitlines() == [
                "all nodes accept the new secret", "all nodes prove with the new secret",
                "all nodes have ended the old secret",
            ]  # fmt: skip
            after = read(secret)
            assert len(after) == SIZE
            assert after != before
            for one in (before, after):
                assert one.hex() not in out + err
            assert main(["pub", "vehicles/VIN-1/cmd/x", "m", "--topology", str(file)]) == 0
            assert loop.run(_received(vehicle), PATIENCE) == ["Publish"]
            capsys.readouterr()
            assert main(["settings", "door", "--topology", str(file)]) == 0
            assert MeshSecret(after).marks()[0] in capsys.readouterr().out
        finally:
            loop.close()


async def _vehicle(port: int) -> Bare:
    client = await Bare(MQTT5).hello(port, "VIN-1")
    client.send(Subscribe(1, [Subscription("vehicles/VIN-1/cmd/#", 1)]))
    await client.wait(SubAck)
    return client


async def _received(client: Bare) -> list[str]:
    """The kinds of the packets that came."""
    await client.wait(Publish)
    kinds = [type(packet).__name__ for packet in client.packets if isinstance(packet, (Publish, Disconnect))]
    await client.close()
    return kinds


def test_an_interrupted_exchange_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_mesh(tmp_path) as file:
        secret = load(file).data / FILE
        data = begun(read(secret))
        replace(secret, data)
        assert main(["secret", "rotate", str(file)]) == 0
        assert read(secret) == data[SIZE : 2 * SIZE]


def test_a_node_that_does_not_follow_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.node.secretwatch.PERIOD", 600.0)
    with running_mesh(tmp_path) as file:
        secret = load(file).data / FILE
        assert main(["secret", "rotate", str(file), "--wait", "1"]) == 1
        err = capsys.readouterr().err
        assert "these do not accept the new secret yet: edge-1, core, door" in err
        assert f"copy {secret} to the same place there" in err
        assert len(read(secret)) > SIZE


def test_a_mesh_that_does_not_run_has_no_exchange(tmp_path: Path) -> None:
    assert main(["secret", "rotate", str(tmp_path / "absent.yaml")]) == 3
