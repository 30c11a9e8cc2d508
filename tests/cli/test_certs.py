"""``mesh certs`` makes what a listener's files need, and says what expires."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.transport.listen import REQUIRED, KeyPair, TlsFiles
from mesh.transport.tlscontext import load

TOPOLOGY = Path(__file__).parents[2] / "topology" / "local.yaml"


@pytest.fixture
def certs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["certs", "init", "certs"]) == 0
    return tmp_path / "certs"


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, object]]:
    capsys.readouterr()
    assert main(["certs", "list", "--json", *words]) == 0
    return {row["label"] + ("" if row["state"] == "in use" else f" {row['state']}"): row for row in _read(capsys)}


def _read(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(capsys.readouterr().out)
    return found


def test_a_listener_takes_the_files(certs: Path) -> None:
    assert main(["certs", "server", "door.example.com", "127.0.0.1"]) == 0
    assert main(["certs", "vehicle", "VIN1", "VIN2"]) == 0
    assert main(["certs", "revoke", "vehicle/VIN1"]) == 0
    pair = KeyPair(certs / "server" / "door.example.com.pem", certs / "server" / "door.example.com.key")
    files = TlsFiles(pairs=(pair,), client=REQUIRED, ca=certs / "ca.pem", crl=certs / "crl.pem")
    assert load(files, "mqtt").trust.count == 1


def test_list_shows_names_and_what_expires(certs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "server", "door.example.com", "192.0.2.7", "--days", "20"]) == 0
    assert main(["certs", "vehicle", "VIN1", "--key", "rsa"]) == 0
    found = rows(capsys)
    assert list(found) == ["ca", "crl", "server/door.example.com", "vehicle/VIN1"]
    assert found["server/door.example.com"]["names"] == ["door.example.com", "192.0.2.7"]
    assert found["server/door.example.com"]["days"] == 20
    assert found["server/door.example.com"]["expired"] is False
    end = datetime.fromisoformat(str(found["vehicle/VIN1"]["expires"]))
    assert abs(end - datetime.now(UTC) - timedelta(days=365)) < timedelta(hours=1)
    assert main(["certs", "list", "--within", "20"]) == 4
    out, err = capsys.readouterr()
    assert "20 days" in out
    assert "within 20 days: server/door.example.com; run mesh certs renew --within 20" in err
    assert main(["certs", "renew"]) == 0
    assert main(["certs", "renew", "--days", "90", "server/door.example.com"]) == 0
    assert main(["certs", "list", "--within", "30"]) == 0


def test_list_all_shows_what_is_replaced_and_revoked(certs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "vehicle", "VIN1", "VIN2"]) == 0
    assert main(["certs", "renew", "vehicle/VIN1"]) == 0
    assert main(["certs", "revoke", "vehicle/VIN2"]) == 0
    assert list(rows(capsys)) == ["ca", "crl", "vehicle/VIN1"]
    assert list(rows(capsys, "--all")) == ["ca", "crl", "vehicle/VIN1", "vehicle/VIN1 replaced", "vehicle/VIN2 revoked"]


def test_internal_makes_what_is_missing(certs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "internal", str(TOPOLOGY), "--also", "mesh.example.com"]) == 0
    found = rows(capsys)
    names = {"console", "core", "door", "edge-1", "edge-2", "operator"}
    assert set(found) == {"ca", "crl", *(f"internal/{name}" for name in names)}
    assert found["internal/edge-1"]["names"] == ["edge-1", "localhost", "127.0.0.1", "mesh.example.com"]
    (certs / "internal" / "door.pem").unlink()
    assert main(["certs", "internal", str(TOPOLOGY)]) == 0
    out = capsys.readouterr().out
    assert "kept internal/edge-1" in out
    assert "made internal/door" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["vehicle", "VIN1"], "VIN1.pem exists; renew it (mesh certs renew vehicle/VIN1)"),
        (["vehicle", "a/b"], "'a/b' cannot be the name in a certificate"),
        (["server", "a_b"], "'a_b' is no name of a server"),
        (["renew", "vehicle/VIN9"], "there is no vehicle/VIN9"),
        (["revoke", "VIN1"], "no certificate of VIN1 was issued here"),
        (["init", "certs"], "exists; choose another folder"),
        (["list", "--folder", "absent"], "mesh certs init absent"),
    ],
)
def test_what_is_wrong_is_said(certs: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert main(["certs", "vehicle", "VIN1"]) == 0
    assert main(["certs", *words]) == 1
    assert says in capsys.readouterr().err


def test_no_key_is_shown(certs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "vehicle", "VIN1"]) == 0
    assert main(["certs", "list", "--all", "--json"]) == 0
    out, err = capsys.readouterr()
    for file in certs.rglob("*.key"):
        assert file.read_text().splitlines()[1] not in out + err
