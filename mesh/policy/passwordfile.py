"""A file of users and the hashes of their passwords: one line each, ``name:hash``, as Mosquitto has it.

It knows lines: never what a user may do. What always holds: a file that could be read has a hash that can be verified
for each of its names, and no name twice; a file is written as a whole or not at all, and only its owner can read it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mesh.policy.hashes import HashError, check_hash
from mesh.private import read_given

MOST: Final = 64 << 20
"""Bytes of a file: half a million users."""

_HASHES: Final = ":$"  # each form of a hash begins with a dollar, and none has a colon


class PasswordFileError(ValueError):
    """A line is wrong; the message names the file, the line, and what would be right."""


def read_passwords(path: Path) -> dict[str, str]:
    """The hashes in a file by name. Empty lines, and those that begin with ``#``, are passed over.

    Raises ``OSError`` (``NotPrivate`` if other users can read or change the file), ``PasswordFileError``.
    """
    if path.stat().st_size > MOST:
        raise PasswordFileError(f"{path} has more than {MOST >> 20} MiB; use more than one provider, or ask over HTTP")
    try:
        lines = read_given(path, secret=True).decode().splitlines()
    except UnicodeDecodeError as error:
        raise PasswordFileError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().rpartition(_HASHES)
        try:
            if not name:
                raise HashError("write name:hash, as mesh passwd does")
            if name in found:
                raise HashError(f"{name!r} is there twice; remove one of the lines")
            check_hash(f"${rest}")
        except HashError as error:
            raise PasswordFileError(f"{path}:{number}: {error}") from None
        found[name] = f"${rest}"
    return found


def write_passwords(path: Path, hashes: Mapping[str, str]) -> None:
    """Replace the file by one with these hashes. Comments go. Raises ``OSError``."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    text = "".join(f"{name}:{hash}\n" for name, hash in hashes.items())
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def name_error(name: str) -> str:
    """Why a name cannot be in such a file; empty if it can."""
    if not name or name != name.strip() or name.startswith("#") or _HASHES in name or not name.isprintable():
        return f"{name!r} cannot be a name here: it must be printable, have no :$, and not begin with # or a blank"
    return ""
