"""A node takes a changed mesh secret while it serves, and only one that changed in this run of the mesh."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mesh.node.secretwatch import SecretWatch, read_changed
from mesh.policy.secrets import FILE, MeshSecret, SecretError, begun, replace, turned
from tests.support.loop import run
from tests.support.waiting import until

SECRET = b"s" * 32


def test_a_file_of_an_earlier_run_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / FILE
    assert read_changed(file, 0.0) is None
    replace(file, SECRET)
    assert read_changed(file, time.time() - 60) == SECRET
    assert read_changed(file, time.time() + 60) is None


def test_a_file_that_others_can_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / FILE
    replace(file, SECRET)
    file.chmod(0o644)
    with pytest.raises(SecretError, match="chmod 600"):
        read_changed(file, 0.0)


def test_a_changed_file_is_taken_and_a_broken_one_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / FILE

    async def main() -> None:
        secret = MeshSecret(SECRET)
        watch = SecretWatch(file, 0.0, secret)
        watch.start()
        try:
            data = begun(SECRET)
            replace(file, data)
            await until(lambda: len(secret.marks()) == 2, "the new secret is accepted")
            before = secret.marks()
            replace(file, b"broken")
            await until(lambda: "stays as it is" in caplog.text, "the fault is logged")
            assert secret.marks() == before
            replace(file, turned(data))
            await until(lambda: secret.marks() == before[::-1], "the new secret proves")
        finally:
            await watch.stop()

    run(main())
    assert SECRET.hex() not in caplog.text
