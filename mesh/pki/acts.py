"""The record of what was done in a folder of an authority: a file to which each change adds a line of JSON.

It knows lines and their file: never what was done, nor who did it. What always holds: a line is added in one piece, and
none is changed or removed; the file has mode 0600. It grows by less than the certificates that the folder keeps.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mesh.private import read_own

FILE: Final = "audit.jsonl"


def note(folder: Path, act: Mapping[str, Any]) -> None:
    """Add an act. Raises ``OSError``."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(folder / FILE, flags, 0o600)
    try:
        os.write(handle, json.dumps(act).encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def newest(folder: Path, most: int) -> list[dict[str, Any]]:
    """The last acts, newest first. A line that is none is left out. Raises ``OSError``."""
    try:
        lines = read_own(folder / FILE).splitlines()
    except FileNotFoundError:
        return []
    found: deque[dict[str, Any]] = deque(maxlen=most)
    for line in lines:
        try:
            act = json.loads(line)
        except ValueError:
            continue
        if isinstance(act, dict):
            found.append(act)
    return list(found)[::-1]
