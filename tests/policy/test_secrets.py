"""The mesh secret: its file and its proofs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.policy.secrets import (
    FILE,
    SIZE,
    MeshSecret,
    SecretError,
    begun,
    ended,
    is_secret,
    load_or_create,
    prove,
    read,
    replace,
    turned,
    verify,
)

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


def test_an_exchange_has_three_steps_in_which_neighbours_trust_each_other() -> None:
    steps = [SECRET]
    for step in (begun, turned, ended):
        steps.append(step(steps[-1]))
        assert step(steps[-1]) == steps[-1] or step is begun
    assert all(is_secret(data) for data in steps)
    assert steps[1][:SIZE] == SECRET
    assert steps[2][:SIZE] == steps[3] != SECRET
    for before, after in pairwise(steps):
        old, new = MeshSecret(before), MeshSecret(after)
        assert old.verifies(new.prove("link", b"part"), "link", b"part")
        assert new.verifies(old.prove("link", b"part"), "link", b"part")
    first, last = MeshSecret(steps[0]), MeshSecret(steps[3])
    assert not first.verifies(last.prove("link"), "link")
    assert not last.verifies(first.prove("link"), "link")


def test_an_exchange_that_was_interrupted_goes_on() -> None:
    first = begun(SECRET)
    assert begun(first) == first
    second = turned(first)
    assert begun(second) == turned(second) == second
    assert ended(second) == first[SIZE : 2 * SIZE]


def test_marks_tell_secrets_apart_and_nothing_of_them() -> None:
    one, two = MeshSecret(SECRET), MeshSecret(begun(SECRET))
    assert len(one.marks()) == 1
    assert two.marks()[0] == one.marks()[0]
    assert len(set(two.marks())) == 2
    assert SECRET.hex()[:16] not in two.marks()


def test_a_file_is_replaced_in_one_step_and_stays_private(tmp_path: Path) -> None:
    data = begun(load_or_create(tmp_path))
    replace(tmp_path / FILE, data)
    assert load_or_create(tmp_path) == read(tmp_path / FILE) == data
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("data", [b"", b"short", bytes(64), bytes(65)])
def test_other_content_is_no_secret(data: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        MeshSecret(data)
