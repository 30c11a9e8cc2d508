"""``SystemFiles`` against the answers that the operating system may give."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh.journal.files import SystemFiles


@pytest.mark.parametrize("answer", ["whole", "short", "unsupported"])
def test_synced_write_is_complete_and_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    real, synced = os.pwritev, []

    def pwritev(handle: int, buffers: Sequence[bytes], offset: int, flags: int = 0) -> int:
        if answer == "unsupported":
            raise OSError(errno.EOPNOTSUPP, "not here")
        if answer == "short":
            return real(handle, [buffers[0][:2]], offset, flags)
        assert flags == os.RWF_DSYNC
        return real(handle, buffers, offset, flags)

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(os, "fdatasync", synced.append)
    files = SystemFiles()
    path = tmp_path / "file"
    handle = files.open(path, create=True)
    files.write_synced(handle, [b"head", b"payload"], 3)
    files.close(handle)
    assert path.read_bytes() == b"\0\0\0headpayload"
    assert synced == ([] if answer == "whole" else [handle])


def test_synced_write_raises_other_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pwritev(handle: int, buffers: Sequence[bytes], offset: int, flags: int = 0) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pwritev", pwritev)
    files = SystemFiles()
    handle = files.open(tmp_path / "file", create=True)
    with pytest.raises(OSError, match="broken"):
        files.write_synced(handle, [b"data"], 0)
    files.close(handle)
