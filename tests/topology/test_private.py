"""The files of a topology, as other users of the host may have read or written them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.policy.scram import make_verifier, write_line
from mesh.topology.load import exposure, load
from mesh.topology.mistakes import TopologyErrors

PLAIN = """
mesh: demo
front_doors: [{name: door, listen: [{mqtt: "127.0.0.1:0"}]}]
cores: [{name: core, listen: [{mqtt: "127.0.0.1:0"}]}]
pools: [{name: standard, edges: [{name: edge-1}]}]
"""
USERS = "backends: {users: [{user: app, password: secret}]}\n"
ETCD_USER = "etcd: {endpoints: ['https://e:2379'], auth: {user: mesh, password: secret}}\n"


def written(folder: Path, text: str, mode: int) -> Path:
    file = folder / "mesh.yaml"
    file.write_text(text)
    file.chmod(mode)
    return file


def said(file: Path) -> str:
    with pytest.raises(TopologyErrors) as caught:
        load(file)
    return str(caught.value)


def test_file_that_every_user_can_write_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, PLAIN, 0o646)
    assert f"{file} has mode 0646: other users could change it; run: chmod 664 {file}" in said(file)
    file.chmod(0o644)
    assert load(file).mesh == "demo"


@pytest.mark.parametrize("passwords", [USERS, ETCD_USER])
def test_passwords_that_every_user_can_read_are_named(tmp_path: Path, passwords: str) -> None:
    file = written(tmp_path, PLAIN + passwords, 0o644)
    topology = load(file)
    assert exposure(file, topology) == (
        f"{file} has passwords, and every user of this machine can read it; run: chmod o-r {file}"
    )
    file.chmod(0o640)
    assert exposure(file, topology) == ""


def test_file_without_passwords_may_be_read_by_every_user(tmp_path: Path) -> None:
    file = written(tmp_path, PLAIN, 0o644)
    assert exposure(file, load(file)) == ""


@pytest.mark.parametrize(("name", "mode", "right"), [("ca", 0o666, 664), ("cert", 0o666, 664), ("key", 0o644, 600)])
def test_certificate_or_key_that_others_could_use_is_refused(tmp_path: Path, name: str, mode: int, right: int) -> None:
    for each in ("ca", "cert", "key"):
        (tmp_path / each).touch(0o600)
    tls = "etcd: {endpoints: ['https://e:2379'], tls: {ca: ca, cert: cert, key: key}}\n"
    file = written(tmp_path, PLAIN + tls, 0o600)
    assert load(file).etcd.tls is not None
    (tmp_path / name).chmod(mode)
    assert f"chmod {right} {tmp_path / name}" in said(file)


def test_verifiers_that_others_could_change_are_refused(tmp_path: Path) -> None:
    verifiers = tmp_path / "vehicles.scram"
    verifiers.write_text(write_line("CAR-1", make_verifier("password")) + "\n")
    file = written(tmp_path, PLAIN + "identity: {scram: vehicles.scram}\n", 0o644)
    verifiers.chmod(0o644)  # as ``mesh scram NAME >> FILE`` makes it
    assert load(file).identity.providers[0].scram == verifiers
    verifiers.chmod(0o646)
    assert "other users could change it; run: chmod 664" in said(file)
