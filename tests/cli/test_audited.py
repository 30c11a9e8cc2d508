"""Every command that changes something leaves a record of who did it, when and what."""

from __future__ import annotations

import argparse
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from mesh.cli import down, guarded, journal, secret, starting
from mesh.cli.audit import lines
from mesh.cli.main import COMMANDS, load, main
from mesh.cluster.lifecycle import planned
from mesh.cluster.run import load_run
from mesh.journal.salvage import Salvaged
from mesh.registry.audit import Act
from mesh.topology.load import load as load_topology
from tests.cli.filled import ROOM, client, fill
from tests.cli.running import running_mesh
from tests.support.ports import free_ports
from tests.support.waiting import wait_until

Captured = pytest.CaptureFixture[str]

# Commands that only show something.
SHOWS: Final = {
    "audit", "ban list", "certs audit", "certs list", "check", "dead-letters list", "dead-letters show", "history",
    "journal inspect", "journal verify", "passwd list", "passwd verify", "plan", "scram", "settings", "status", "sub",
    "where",
}  # fmt: skip

# Commands that change something and leave no record, with the reason.
UNRECORDED: Final = {
    "init": "it writes a new topology file, of which there is no mesh yet",
    "pub": "it is a client like any other: what clients may do, access says, and what they send is traced, not audited",
    "bench": "its clients are like any others",
}


def words() -> set[str]:
    """All commands, with their actions."""
    found: set[str] = set()
    for name, entry in COMMANDS.items():
        parser = argparse.ArgumentParser()
        load(entry).options(parser)
        actions = next((one.choices for one in parser._actions if one.dest == "action"), None)
        found |= {name} if actions is None else {f"{name} {action}" for action in actions}
    return found


class Shop:
    """A running mesh, with a file of passwords and a folder of certificates, and what a test needs of it."""

    def __init__(self, folder: Path, file: Path, patch: pytest.MonkeyPatch, capsys: Captured) -> None:
        self.folder, self.file, self.patch, self._capsys = folder, file, patch, capsys
        self.passwords, self.certs = folder / "passwords.txt", folder / "certs"
        patch.setattr(guarded, "running", lambda: [load_run(folder / "data")])

    def mesh(self, *line: str) -> None:
        """Run a command on the mesh."""
        assert main([*line, "--topology", str(self.file)]) == 0

    def alone(self, *line: str | Path) -> None:
        """Run a command that takes no mesh."""
        assert main([str(word) for word in line]) == 0

    def acts(self, *line: str) -> list[dict[str, Any]]:
        self._capsys.readouterr()
        assert main([*(line or ("audit", str(self.file))), "--json"]) == 0
        found: list[dict[str, Any]] = json.loads(self._capsys.readouterr().out)
        return found


def started(shop: Shop) -> None:
    """As if the mesh had been started by this command."""
    topology = load_topology(shop.file)
    shop.patch.setattr(starting, "up", lambda *_: load_run(topology.data))
    shop.patch.setattr(starting, "warn", lambda run: 0)
    assert starting.background(planned(topology), topology, str(shop.file)) == 0


def stopped(shop: Shop) -> None:
    shop.patch.setattr(down, "stop", lambda *_: True)
    shop.mesh("down")


def salvaged(shop: Shop) -> None:
    """As if edge-1 had a damaged journal."""
    shop.patch.setattr(journal, "salvage", lambda *_: Salvaged(5, 0, 2, None))
    shop.mesh("journal", "salvage", "edge-1", "--yes")


def purged(shop: Shop) -> None:
    fill(str(shop.file), "CAR-3", 1)
    shop.mesh("dead-letters", "purge", "vehicles/CAR-3/#")


def replayed(shop: Shop) -> None:
    fill(str(shop.file), "CAR-4", 1)
    came: list[bytes] = []
    car = client(load_topology(shop.file).front_doors[0].listen[0].address, "CAR-4", True, came)
    wait_until(lambda: len(came) == ROOM)
    shop.mesh("dead-letters", "replay")
    car.disconnect()
    car.loop_stop()


def imported(shop: Shop) -> None:
    table = shop.folder / "emqx.csv"
    table.write_text(f"user_id,password_hash,salt\nCAR-9,{'ab' * 32},salt\n")
    shop.alone("passwd", "import", shop.passwords, table)


# In this order, on one mesh. Each with a text that its record has.
RECORDED: Final[dict[str, tuple[Callable[[Shop], None], str]]] = {
    "up": (started, "the mesh has started"),
    "log-level": (lambda shop: shop.mesh("log-level", "debug", "--node", "edge-1"), "edge-1"),
    "ban add": (lambda shop: shop.mesh("ban", "add", "user", "app", "--reason", "a test"), "user app (a test)"),
    "ban remove": (lambda shop: shop.mesh("ban", "remove", "user", "app"), "user app"),
    "kick": (lambda shop: shop.mesh("kick", "CAR-1"), "vehicle CAR-1"),
    "passwd add": (lambda shop: shop.alone("passwd", "add", shop.passwords, "CAR-2", "--generate"), "CAR-2 in "),
    "passwd change": (lambda shop: shop.alone("passwd", "change", shop.passwords, "CAR-2", "--generate"), "CAR-2 in "),
    "passwd remove": (lambda shop: shop.alone("passwd", "remove", shop.passwords, "CAR-2"), "CAR-2 in "),
    "passwd import": (imported, "emqx.csv"),
    "secret rotate": (lambda shop: shop.alone("secret", "rotate", shop.file), "was exchanged"),
    "dead-letters purge": (purged, "1 letters of vehicles/CAR-3/#"),
    "dead-letters replay": (replayed, "1 letters of #"),
    "journal salvage": (salvaged, "edge-1: 5 items are kept, 2 are lost"),
    "down": (stopped, "the mesh stops"),
}  # fmt: skip

# Of a folder of certificates, in this order.
RECORDED_BESIDE: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "certs init": (("certs",), "the authority 'vehicle mesh CA'"),
    "certs server": (("localhost", "--days", "5"), "server/localhost, serial "),
    "certs vehicle": (("CAR-1",), "vehicle/CAR-1, serial "),
    "certs renew": ((), "server/localhost, serial "),
    "certs revoke": (("vehicle/CAR-1", "--reason", "key-compromise"), "vehicle/CAR-1 (key-compromise): "),
}
INTERNAL: Final = "certs internal"  # of an authority of its own


def test_every_command_is_known_here() -> None:
    lists = (SHOWS, UNRECORDED, RECORDED, RECORDED_BESIDE, (INTERNAL,))
    assert sorted(word for known in lists for word in known) == sorted(words())


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> Iterator[Shop]:
    monkeypatch.chdir(tmp_path)
    assert main(["passwd", "add", "passwords.txt", "CAR-1", "--generate"]) == 0
    providers = ", providers: [{name: file, password: passwords.txt}, anonymous]"
    with running_mesh(tmp_path, f"limits: {{queue_messages: {ROOM}}}\n", providers) as file:
        yield Shop(tmp_path, file, monkeypatch, capsys)


def test_each_change_of_a_mesh_is_in_its_audit_log(shop: Shop) -> None:
    for command, (change, text) in RECORDED.items():
        before = len(shop.acts())
        change(shop)
        acts = shop.acts()
        newest = acts[0]
        assert (len(acts), newest["command"]) == (before + 1, f"mesh {command}")
        assert text in newest["what"]
        assert newest["by"]
        assert newest["host"]


def test_a_change_of_the_settings_is_one_act(shop: Shop) -> None:
    shop.file.write_text(shop.file.read_text().replace(f"queue_messages: {ROOM}", f"queue_messages: {ROOM + 1}"))
    shop.file.chmod(0o600)
    shop.alone("up", shop.file)
    (act,) = shop.acts()
    assert (act["command"], "limits.queue_messages" in act["what"]) == ("mesh up", True)


def test_what_changes_nothing_is_no_act(shop: Shop, capsys: Captured) -> None:
    shop.mesh("dead-letters", "purge", "#")
    shop.mesh("dead-letters", "list")
    assert main(["ban", "remove", "vehicle", "CAR-1", "--topology", str(shop.file)]) == 4
    assert shop.acts() == []


def test_a_secret_whose_exchange_is_not_over_is_an_act(shop: Shop) -> None:
    shop.patch.setattr(secret, "_behind", lambda *_: ["door"])
    assert main(["secret", "rotate", str(shop.file), "--wait", "0"]) == 1
    (act,) = shop.acts()
    assert act["what"] == "its exchange is not over: not all nodes accept the new secret"


def test_each_change_of_certificates_is_in_the_record_of_their_folder(shop: Shop) -> None:
    shop.alone("certs", "init", "inside")
    shop.alone("certs", "internal", shop.file, "--folder", "inside")
    inside = shop.acts("certs", "audit", "--folder", "inside")
    assert [one["command"] for one in inside] == [*["mesh certs internal"] * 5, "mesh certs init"]
    for command, (line, text) in RECORDED_BESIDE.items():
        shop.alone(*command.split(), *line)
        newest = shop.acts("certs", "audit")[0]
        assert (newest["command"], text in newest["what"]) == (f"mesh {command}", True)
    record = shop.certs / "audit.jsonl"
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    with record.open("ab") as out:
        out.write(b'"no act"\n{"at": 1}\nno JSON\n')
    assert len(shop.acts("certs", "audit")) == len(RECORDED_BESIDE)
    assert shop.acts() == []  # the mesh uses none of these files


def test_the_record_of_a_folder_is_shown_in_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["certs", "init", "certs"]) == 0
    capsys.readouterr()
    assert main(["certs", "audit"]) == 0
    assert capsys.readouterr().out.endswith("  mesh certs init: the authority 'vehicle mesh CA'\n")
    assert main(["certs", "audit", "--folder", "absent"]) == 1


def test_a_mesh_that_uses_the_list_and_a_certificate_has_their_changes_in_its_audit_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in (["init", "certs"], ["server", "localhost", "--days", "5"], ["vehicle", "CAR-1", "CAR-2"]):
        assert main(["certs", *line]) == 0
    with running_mesh(tmp_path) as file:
        shop = Shop(tmp_path, file, monkeypatch, capsys)
        port = free_ports(1)[0]
        tls = (
            "{cert: certs/server/localhost.pem, key: certs/server/localhost.key, client: required, ca: certs/ca.pem, "
            "crl: certs/crl.pem}"
        )
        text = file.read_text()
        door = text.index("front_doors: [{name: door, listen: [") + len("front_doors: [{name: door, listen: [")
        file.write_text(f'{text[:door]}{{mqtts: "127.0.0.1:{port}", tls: {tls}}}, {text[door:]}')
        file.chmod(0o600)
        shop.alone("up", file)
        # The controller, which this mesh does not have, keeps the plan of the new settings.
        shop.patch.setattr(guarded, "topology_of", lambda run: load_topology(file))
        shop.alone("certs", "revoke", "vehicle/CAR-1", "vehicle/CAR-2")
        shop.alone("certs", "renew")
        newest = [(one["command"], one["what"]) for one in shop.acts()[:2]]
        assert newest[0] == ("mesh certs renew", "server/localhost")
        assert newest[1][0] == "mesh certs revoke"
        assert "vehicle/CAR-2 (unspecified): " in newest[1][1]


def test_no_act_changes_the_terminal() -> None:
    act = Act(0.0, "me", "here", "mesh dead-letters purge", "1 letters of a\x1b[2J\nb\u202ec Zoë")
    (line,) = lines([act]).splitlines()
    assert line == "1970-01-01T00:00:00Z  me@here  mesh dead-letters purge: 1 letters of a\\x1b[2J\\nb\\u202ec Zoë"
