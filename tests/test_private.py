"""Folders and files that other users of the host must not reach."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.private import NotPrivate, make_private, read_given, read_named, read_own, user_name

STRANGER = 54_321


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the mesh as another user than the owner of the test's files."""
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)


def test_new_folder_and_its_new_parents_are_private(tmp_path: Path) -> None:
    make_private(tmp_path / "a" / "b")
    assert (mode_of(tmp_path / "a"), mode_of(tmp_path / "a" / "b")) == (0o700, 0o700)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777, 0o770])
def test_folder_that_others_may_enter_is_tightened(tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "kept").write_text("x")
    folder.chmod(mode)
    make_private(folder)
    assert mode_of(folder) == 0o700
    assert f"{folder} had mode {mode:04o}" in caplog.text


def test_private_folder_is_left_alone_and_nothing_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "data"
    make_private(folder)
    make_private(folder)
    assert caplog.text == ""


@pytest.mark.usefixtures("stranger")
def test_folder_of_another_user_is_refused_and_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(0o755)
    with pytest.raises(NotPrivate, match=f"belongs to .*chown -R {STRANGER} {folder}"):
        make_private(folder)
    assert mode_of(folder) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_entry_that_another_user_put_into_an_open_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    planted = folder / "token"
    planted.symlink_to("/etc/hostname")
    os.chown(planted, STRANGER, STRANGER, follow_symlinks=False)
    folder.chmod(0o777)
    with pytest.raises(NotPrivate, match=f"{planted} belongs to {STRANGER}; remove it"):
        make_private(folder)


@pytest.mark.parametrize("read", [read_own, read_given])
def test_file_is_read(tmp_path: Path, read: Callable[[Path], bytes]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    path.chmod(0o644)
    assert read(path) == b"content"
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "other")


@pytest.mark.usefixtures("stranger")
@pytest.mark.parametrize("read", [read_own, read_given])
def test_file_of_another_user_is_refused(
    tmp_path: Path, read: Callable[[Path], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    monkeypatch.setattr("mesh.private.ROOT", 12_345)  # the owner of the file may be root
    with pytest.raises(NotPrivate, match=f"{path} belongs to "):
        read(path)


@pytest.mark.parametrize(
    ("read", "secret", "mode", "right"),
    [
        (read_own, False, 0o664, "chmod 644"),
        (read_own, True, 0o640, "chmod 600"),
        (read_own, True, 0o604, "chmod 600"),
        (read_given, False, 0o666, "chmod 664"),
        (read_given, True, 0o640, "chmod 600"),
        (read_given, True, 0o644, "chmod 600"),
    ],
)
def test_file_that_others_could_use_is_refused(
    tmp_path: Path, read: Callable[[Path, bool], bytes], secret: bool, mode: int, right: str
) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    with pytest.raises(NotPrivate, match=rf"has mode {mode:04o}: other users could (read|change) it; run: {right} "):
        read(path, secret)
    path.chmod(int(right.split()[1], 8))
    assert read(path, secret) == b""


def test_secret_of_root_may_be_readable_by_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"key")
    path.chmod(0o640)
    monkeypatch.setattr("mesh.private.ROOT", os.geteuid())
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    assert read_given(path, secret=True) == b"key"
    path.chmod(0o644)
    with pytest.raises(NotPrivate, match="chmod 640"):
        read_given(path, secret=True)


def test_only_a_file_of_an_operator_may_be_a_symbolic_link(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    path.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert read_given(link, secret=True) == b"content"
    with pytest.raises(NotPrivate, match="symbolic link"):
        read_own(link)


def test_error_has_its_sentence_as_text_and_as_reason(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(0o666)
    with pytest.raises(OSError, match="chmod 664") as caught:
        read_given(path)
    assert str(caught.value) == caught.value.strerror


def test_folder_for_all_users_is_refused_and_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    with pytest.raises(NotPrivate, match="has mode 1777: it is for all users; choose a folder for the mesh alone"):
        make_private(folder)
    assert folder.stat().st_mode & 0o7777 == 0o1777


def test_named_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_bytes(b"content")
    path.chmod(0o644)
    assert read_named(path, 4) == b"cont"
    assert read_named(path, 100) == b"content"
    path.chmod(0o646)
    with pytest.raises(NotPrivate, match="other users could change it; run: chmod 664"):
        read_named(path, 100)


def test_only_root_may_name_a_file_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mesh.yaml"
    path.touch(0o600)
    monkeypatch.setattr("mesh.private.ROOT", 12_345)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with pytest.raises(NotPrivate, match=f"it must belong to {STRANGER} or root"):
        read_named(path, 100)
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    assert read_named(path, 100) == b""


OWN = user_name(os.geteuid())


def denied(*_: object, **__: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_a_folder_whose_mode_cannot_be_changed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    folder.mkdir(0o755)
    monkeypatch.setattr(os, "fchmod", denied)
    right = f"{folder} belongs to {OWN} and has mode 0755: .*Operation not permitted; .*run: chmod 700 {folder}"
    with pytest.raises(NotPrivate, match=right):
        make_private(folder)
    monkeypatch.setattr(os, "fchmod", lambda handle, mode: None)
    with pytest.raises(NotPrivate, match=f"{folder} belongs to {OWN} .*the file system keeps no modes"):
        make_private(folder)


@pytest.mark.parametrize(
    ("call", "right"),
    [
        (make_private, "choose another folder, or run: chown -R {own} {path}"),
        (read_own, "run this as {own} if the mesh is theirs; if it is yours, remove it"),
        (read_given, "run: chown {own} {path}"),
        (lambda path: read_named(path, 10), "run: chown {own} {path}"),
    ],
    ids=["make_private", "read_own", "read_given", "read_named"],
)
def test_what_may_not_be_opened_is_named_with_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[Path], object], right: str
) -> None:
    path = tmp_path / "it"
    path.mkdir(0o750)
    monkeypatch.setattr(os, "open", denied)
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(NotPrivate) as caught:
        call(path)
    assert str(caught.value) == (
        f"{path} belongs to {OWN} and has mode 0750; {OWN}, as whom the mesh runs, may not open it: "
        f"Operation not permitted; {right.format(own=OWN, path=path)}"
    )


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(NotPrivate, match=f"{tmp_path} belongs to {OWN} .*{tmp_path / 'data'} cannot be made there"):
        make_private(tmp_path / "data")


def test_what_cannot_be_reached_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(NotPrivate, match=f"{tmp_path / 'no'} cannot be reached by {OWN}.*No such file"):
        read_given(tmp_path / "no")
