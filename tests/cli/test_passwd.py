"""``mesh passwd``: a file of users, and what never appears."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.policy.hashes import verify
from mesh.policy.passwordfile import read_passwords


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "passwords.txt"


def passwd(monkeypatch: pytest.MonkeyPatch, typed: str, *words: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    return main(["passwd", *words])


def test_users_are_added_changed_verified_and_removed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(file)
    assert passwd(monkeypatch, "first\n", "add", name, "V1") == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert passwd(monkeypatch, "other\n", "add", name, "V1") == 1
    assert passwd(monkeypatch, "first\n", "verify", name, "V1") == 0
    assert passwd(monkeypatch, "other\n", "verify", name, "V1") == 1
    assert passwd(monkeypatch, "second\n", "change", name, "V1") == 0
    assert passwd(monkeypatch, "second\n", "verify", name, "V1") == 0
    assert passwd(monkeypatch, "x\n", "change", name, "V2") == 1
    assert passwd(monkeypatch, "", "remove", name, "V2") == 1
    assert passwd(monkeypatch, "", "remove", name, "V1") == 0
    assert read_passwords(file) == {}
    assert passwd(monkeypatch, "\n", "add", name, "V1") == 1
    assert passwd(monkeypatch, "x\n", "add", name, "a:$b") == 1


def test_passwords_are_made_and_shown_once(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert passwd(monkeypatch, "", "add", str(file), "V1", "V2", "--generate") == 0
    made = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    hashes = read_passwords(file)
    assert made.keys() == hashes.keys() == {"V1", "V2"}
    assert all(verify(hashes[name], password.encode()) for name, password in made.items())
    assert not any(password in file.read_text() for password in made.values())
    assert passwd(monkeypatch, "typed\n", "add", str(file), "V3") == 0
    assert passwd(monkeypatch, "", "list", str(file)) == 0
    assert capsys.readouterr().out.split() == ["V1", "argon2id", "V2", "argon2id", "V3", "argon2id"]
    assert passwd(monkeypatch, "", "list", str(file), "--json") == 0
    assert json.loads(capsys.readouterr().out)[2] == {"name": "V3", "form": "argon2id"}
    assert "m=256,t=1" in read_passwords(file)["V1"], "quick, as it cannot be guessed"
    assert "m=19456,t=2" in read_passwords(file)["V3"]


def test_users_of_emqx_are_imported_all_or_none(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "users.csv"
    rows.write_text(
        "user_id,password_hash,salt,is_superuser\n"
        "V1,01dbee7f4a9e243e988b62c73cda935d,ATHENA.MIT.EDUraeburn,false\n"
        "V2,$2b$04$m9FOcppzxeduuWxQqQ3kpuigKmJ0jLVs5PSoss1M/sGoXS9kdR.H2,,true\n"
    )
    words = ("import", str(file), str(rows), "--mac", "sha1", "--iterations", "2")
    assert passwd(monkeypatch, "", *words) == 0
    assert passwd(monkeypatch, "password\n", "verify", str(file), "V1") == 0
    assert passwd(monkeypatch, "pass word\n", "verify", str(file), "V2") == 0
    rows.write_text("user_id,password_hash,salt\nV3,00112233445566778899aabbccddeeff,s\nV4,zz,s\n")
    assert passwd(monkeypatch, "", *words) == 1
    assert "users.csv:3: the hash is neither" in capsys.readouterr().err
    assert read_passwords(file).keys() == {"V1", "V2"}


def test_a_wrong_file_and_an_absent_one_are_named(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert passwd(monkeypatch, "", "list", str(file)) == 1
    assert f"{file}: No such file" in capsys.readouterr().err
    file.touch(0o600)
    file.write_text("V1:password\n")
    assert passwd(monkeypatch, "x\n", "add", str(file), "V2") == 1
    err = capsys.readouterr().err
    assert "passwords.txt:1: write name:hash" in err
    assert "password\n" not in err.replace("passwords.txt", "")
    os.chmod(file, 0o644)
    assert passwd(monkeypatch, "", "list", str(file)) == 1
    assert "chmod 600" in capsys.readouterr().err
