"""The secret that all nodes of one mesh share, and proofs of its knowledge.

It knows 32 bytes in a file that only its owner can read. It must never send or log them. What always holds: the file is
complete or absent, even if several nodes create it at the same time; a proof for one purpose is not valid for another.
"""

from __future__ import annotations

import os
import secrets
from hashlib import sha256
from hmac import compare_digest, digest
from pathlib import Path
from typing import Final

from mesh.private import NotPrivate, make_private, read_own

SIZE: Final = 32  # as long as the digest that it keys (RFC 2104 section 3)
FILE: Final = "secret"


class SecretError(Exception):
    """The secret file cannot be used; the message says why and what to do."""


def load_or_create(folder: Path) -> bytes:
    """The secret in ``folder``/secret. A missing file is created (mode 0600, the folder 0700).

    Raises ``SecretError`` if others may read the file, it is another user's, or its length is wrong; ``OSError`` if it
    can be neither read nor created.
    """
    path = folder / FILE
    try:
        return read(path)
    except FileNotFoundError:
        make_private(folder)
        _create(path)
        return read(path)


def read(path: Path) -> bytes:
    """The secret in a file. Raises ``FileNotFoundError``, ``SecretError``."""
    try:
        secret = read_own(path, secret=True)
    except NotPrivate as error:
        raise SecretError(str(error)) from None
    if len(secret) != SIZE:
        raise SecretError(
            f"{path}: the secret of the mesh must have {SIZE} bytes; copy the file from another node, or remove it "
            "to have a new one created"
        )
    return secret


def _create(path: Path) -> None:
    """Write a new secret beside ``path`` and link it to that name, unless another process was first."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SIZE))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # unlike rename, link never replaces the secret of another process
        except FileExistsError:
            return
    finally:
        fresh.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def prove(secret: bytes, purpose: str, *parts: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104) over the purpose and the parts, 32 bytes.

    The length of each precedes it, so that ``(b"ab", b"c")`` and ``(b"a", b"bc")`` have different proofs.
    """
    message = b"".join(len(part).to_bytes(4, "big") + part for part in (purpose.encode(), *parts))
    return digest(secret, message, sha256)


def verify(secret: bytes, proof: bytes, purpose: str, *parts: bytes) -> bool:
    """Whether ``proof`` is the proof of these parts; takes constant time."""
    return compare_digest(prove(secret, purpose, *parts), proof)
