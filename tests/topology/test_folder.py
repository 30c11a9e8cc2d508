"""Whether a data folder can be used is known before anything is made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.topology.folder import unusable

OTHER_USER = 65_534


def as_other_user(question: Callable[[], str]) -> str:
    """The answer of a process of a user who owns nothing here."""
    if os.geteuid() != 0:
        return question()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(OTHER_USER)
            os.setuid(OTHER_USER)
            os.write(writer, question().encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as answer:
        return answer.read().decode()


@pytest.mark.parametrize("below", [".", "mesh", "a/b/c"])
def test_a_folder_that_exists_or_can_be_made_is_usable(tmp_path: Path, below: str) -> None:
    assert unusable(tmp_path / below) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_data_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "mesh"):
        assert unusable(folder) == f"data: {tmp_path}/file is a file; name a folder that exists or can be made"


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "mesh").symlink_to(tmp_path / "unmounted")
    assert unusable(tmp_path / "mesh") == (
        f"data: {tmp_path}/mesh is a link to {tmp_path}/unmounted, which does not exist; make that folder"
    )


@pytest.mark.parametrize("below", ["", "mesh"])
def test_a_folder_that_this_user_cannot_write_to_is_named(below: str) -> None:
    folder = Path("/usr") / below
    said = as_other_user(lambda: unusable(folder))
    made = f", so {folder} cannot be made" if below else ""
    assert said == f"data: this user cannot write to /usr{made}; name a folder of this user"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("below", ["mesh", "a/b"])
def test_a_folder_that_this_user_cannot_enter_is_named(tmp_path: Path, below: str) -> None:
    """It is not known whether the data folder exists in it."""
    tmp_path.chmod(0o700)
    folder = tmp_path / below
    closed = next(above for above in reversed(folder.parents) if not above.stat().st_mode & 0o001)
    said = as_other_user(lambda: unusable(folder))
    assert said == f"data: this user cannot enter {closed}, where {folder} would be; name a folder of this user"


@pytest.mark.parametrize("below", ["", "mesh"])
def test_a_read_only_file_system_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str) -> None:
    values = list(os.statvfs(tmp_path))
    values[8] |= os.ST_RDONLY  # f_flag
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(values))
    said = unusable(tmp_path / below)
    assert said == f"data: the file system of {tmp_path} is read-only; name a folder on another one"


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    """A folder that every user can reach."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    return tmp_path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_of_another_user_is_named(open_to_all: Path) -> None:
    folder = open_to_all / "mesh"
    folder.mkdir()
    folder.chmod(0o777)
    assert f"{folder} belongs to root, and the mesh runs as" in as_other_user(lambda: unusable(folder))
