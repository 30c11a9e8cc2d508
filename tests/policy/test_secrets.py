"""The mesh secret: its file and its proofs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.policy.secrets import FILE, SIZE, SecretError, load_or_create, prove, verify

SECRET = bytes(range(32))


def test_file_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mesh"
    secret = load_or_create(folder)
    assert len(secret) == SIZE
    assert load_or_create(folder) == secret
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_concurrent_creators_get_the_same_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: load_or_create(tmp_path / "data"), range(32)))
    assert len(found) == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == [FILE]


def test_file_readable_by_others_is_refused(tmp_path: Path) -> None:
    load_or_create(tmp_path)
    (tmp_path / FILE).chmod(0o640)
    with pytest.raises(SecretError, match="chmod 600"):
        load_or_create(tmp_path)


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_file_of_wrong_length_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).touch(0o600)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(SecretError, match="32 bytes"):
        load_or_create(tmp_path)


def test_proof_holds_for_its_secret_purpose_and_parts() -> None:
    proof = prove(SECRET, "link", b"door-1", b"edge-1")
    assert len(proof) == 32
    assert verify(SECRET, proof, "link", b"door-1", b"edge-1")
    assert not verify(SECRET, proof, "tier", b"door-1", b"edge-1")
    assert not verify(SECRET, proof, "link", b"edge-1", b"door-1")
    assert not verify(bytes(32), proof, "link", b"door-1", b"edge-1")
    assert not verify(SECRET, proof[:-1], "link", b"door-1", b"edge-1")
    assert not verify(SECRET, b"", "link", b"door-1", b"edge-1")


Parts = st.lists(st.binary(max_size=6), max_size=4)


@given(Parts, Parts)
def test_different_parts_have_different_proofs(left: list[bytes], right: list[bytes]) -> None:
    assert (prove(SECRET, "p", *left) == prove(SECRET, "p", *right)) is (left == right)
