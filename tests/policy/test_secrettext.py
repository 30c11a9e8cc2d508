"""Secrets in files and environment variables: the value is in no error and no representation."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.policy.secrettext import SecretText, SecretUnusable

KEY = "backends.users.app.password"


def written(tmp_path: Path, data: bytes, mode: int = 0o600) -> SecretText:
    file = tmp_path / "app.secret"
    file.write_bytes(data)
    file.chmod(mode)
    return SecretText(file=file)


@pytest.mark.parametrize("data", [b"pass word", b"pass word\n", b"pass word\r\n"])
def test_a_line_break_at_the_end_is_no_part_of_the_secret(tmp_path: Path, data: bytes) -> None:
    assert written(tmp_path, data).read(KEY) == "pass word"


def test_a_file_is_read_anew(tmp_path: Path) -> None:
    secret = written(tmp_path, b"one")
    assert secret.read(KEY) == "one"
    written(tmp_path, b"two")
    assert secret.read(KEY) == "two"


def test_a_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_PASSWORD", "pässword")
    assert SecretText(env="APP_PASSWORD").read(KEY) == "pässword"


@pytest.mark.parametrize(
    ("data", "mode", "says"),
    [
        (b"", 0o600, "is empty"),
        (b"\n", 0o600, "is empty"),
        (b"hidden\nhidden", 0o600, "more than one line"),
        (b"hid\0den", 0o600, "the character NUL"),
        (b"hidden\xff", 0o600, "is not UTF-8 text"),
        (b"hidden" * 20_000, 0o600, "more than 65535 bytes"),
        (b"hidden", 0o644, "run: chmod 600"),
    ],
)
def test_an_unusable_file_is_named_without_its_content(tmp_path: Path, data: bytes, mode: int, says: str) -> None:
    secret = written(tmp_path, data, mode)
    with pytest.raises(SecretUnusable) as error:
        secret.read(KEY)
    assert str(error.value).startswith(f"{KEY}: {tmp_path / 'app.secret'} ")
    assert says in str(error.value)
    assert "hidden" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_a_missing_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SecretUnusable, match="absent cannot be read: No such file"):
        SecretText(file=tmp_path / "absent").read(KEY)
    monkeypatch.delenv("APP_PASSWORD", raising=False)
    with pytest.raises(SecretUnusable, match=f"{KEY}: the environment variable APP_PASSWORD is not set"):
        SecretText(env="APP_PASSWORD").read(KEY)


def test_no_representation_has_the_value() -> None:
    assert "hidden" not in repr(SecretText(text="hidden"))
    assert SecretText(text="hidden").written
    assert not SecretText(env="HIDDEN").written
