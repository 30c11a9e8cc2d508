"""The data folder and its files, as other users of the host may have left them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cluster.lifecycle import down, planned
from mesh.cluster.place import place_of
from mesh.cluster.rayenv import environment, ray_folder
from mesh.cluster.run import (
    STOPPED,
    Run,
    claim_folder,
    load_plan,
    load_run,
    plan_path,
    run_path,
    save_plan,
    save_run,
    status_path,
)
from mesh.cluster.status import load_status
from mesh.policy.secrets import FILE, SecretError
from mesh.private import NotPrivate
from mesh.topology.load import load
from tests.cluster.meshes import fake_plan

EXAMPLE = Path(__file__).parents[2] / "topology" / "local.yaml"
STRANGER = 54_321


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_data_folder_that_exists_is_tightened_by_the_start(tmp_path: Path) -> None:
    file = tmp_path / "local.yaml"
    file.write_text(EXAMPLE.read_text().replace("../.mesh/local", "data"))
    data = tmp_path / "data"
    data.mkdir(0o755)
    planned(load(file))
    assert mode_of(data) == 0o700


def test_folder_of_other_programs_is_refused_and_unchanged(tmp_path: Path) -> None:
    """``data: /etc`` must not take /etc away from everybody else."""
    data = tmp_path / "etc"
    data.mkdir()
    (data / "hosts").touch()
    data.chmod(0o755)
    with pytest.raises(NotPrivate, match=f"has files of other programs.* run: chmod 700 {data}"):
        claim_folder(data)
    assert mode_of(data) == 0o755
    data.chmod(0o700)
    claim_folder(data)
    (data / "plan.json").touch()
    data.chmod(0o755)
    claim_folder(data)
    assert mode_of(data) == 0o700


def test_data_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "local.yaml"
    file.write_text(EXAMPLE.read_text().replace("../.mesh/local", "data"))
    (tmp_path / "data").mkdir()
    topology = load(file)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with pytest.raises(NotPrivate, match="choose another folder, or run: chown"):
        planned(topology)


def test_rays_folder_is_tightened_before_the_token_is_made(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ray_folder(data).mkdir(parents=True)
    ray_folder(data).chmod(0o777)
    token = Path(environment(data)["RAY_AUTH_TOKEN_PATH"])
    assert [mode_of(path) for path in (data, ray_folder(data), token)] == [0o700, 0o700, 0o600]
    before = token.read_text()
    environment(data)
    assert token.read_text() == before


def test_token_that_others_could_read_or_replace_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = Path(environment(tmp_path)["RAY_AUTH_TOKEN_PATH"])
    token.chmod(0o644)
    with pytest.raises(NotPrivate, match=f"run: chmod 600 {token}"):
        environment(tmp_path)
    token.unlink()
    token.symlink_to("/etc/hostname")
    with pytest.raises(NotPrivate, match="symbolic link"):
        environment(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_token_of_another_user_is_refused(tmp_path: Path) -> None:
    token = Path(environment(tmp_path)["RAY_AUTH_TOKEN_PATH"])
    os.chown(token, STRANGER, STRANGER)
    with pytest.raises(NotPrivate, match=f"{token} belongs to {STRANGER}"):
        environment(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_secret_of_another_user_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "local.yaml"
    file.write_text(EXAMPLE.read_text().replace("../.mesh/local", "data"))
    topology = load(file)
    planned(topology)
    os.chown(tmp_path / "data" / FILE, STRANGER, STRANGER)
    with pytest.raises(SecretError, match=f"belongs to {STRANGER}"):
        planned(topology)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_no_command_acts_on_the_files_of_another_user(tmp_path: Path) -> None:
    """``mesh down`` ends the processes that the run file names."""
    plan = fake_plan(tmp_path)
    save_plan(plan)
    save_run(Run(plan.mesh, "", plan.data, plan.ray, "", "", plan.endpoints, os.getpid(), 0.0, STOPPED))
    status_path(tmp_path).write_text("{}")
    for path in (run_path(tmp_path), plan_path(tmp_path), status_path(tmp_path)):
        os.chown(path, STRANGER, STRANGER)
    for read in (load_run, load_plan, load_status, down):
        with pytest.raises(NotPrivate, match=f"belongs to {STRANGER}"):
            read(tmp_path)


def test_plan_with_passwords_that_others_could_read_is_refused(tmp_path: Path) -> None:
    save_plan(fake_plan(tmp_path))
    plan_path(tmp_path).chmod(0o644)
    with pytest.raises(NotPrivate, match="chmod 600"):
        load_plan(tmp_path)


def test_node_on_another_machine_makes_its_folders_private(tmp_path: Path) -> None:
    """Only the machine of ``mesh up`` has a data folder when the nodes start."""
    file = tmp_path / "local.yaml"
    file.write_text(EXAMPLE.read_text().replace("../.mesh/local", "data"))
    plan = planned(load(file))
    other = tmp_path / "other" / "data"
    node = plan.node("edge-1")
    assert node is not None
    there = replace(plan.assignment(node), data=str(other))
    place_of(there)
    folders = [other.parent, other, there.folder.parent, there.folder]
    assert [mode_of(path) for path in folders] == [0o700] * 4
