"""The secret that all nodes of one mesh share, and proofs of its knowledge.

It knows a file that only its owner can read, with 32 bytes that nodes prove with; while the secret is exchanged, also
with 32 bytes that they accept. It must never send or log them. What always holds: the file is complete or absent, even
if several nodes create it at the same time, and changes in one step; a proof for one purpose is not valid for another.

An exchange has three steps, each of them in force everywhere before the next: ``begun`` (all accept the new secret),
``turned`` (all prove with it, and still accept the old one), ``ended`` (only the new one is valid).
"""

from __future__ import annotations

import os
import secrets
from hashlib import sha256
from hmac import compare_digest, digest
from pathlib import Path
from typing import Final, final

from mesh.private import NotPrivate, make_private, read_own
from mesh.transport.handshake import Prover

SIZE: Final = 32  # as long as the digest that it keys (RFC 2104 section 3)
FILE: Final = "secret"

_NEXT: Final = b"+"  # behind the two secrets of an exchange: the second one is the new one
_PREVIOUS: Final = b"-"  # the second one is the old one
_TWO: Final = 2 * SIZE + 1
_MARK: Final = "mark"


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
    if not is_secret(secret):
        raise SecretError(
            f"{path}: the secret of the mesh must have {SIZE} bytes, or {_TWO} while it is exchanged; copy the file "
            "from another node, or remove it to have a new one created"
        )
    return secret


def is_secret(data: bytes) -> bool:
    """Whether this is the content of a file with a secret."""
    return len(data) == SIZE or (len(data) == _TWO and data[-1:] in (_NEXT, _PREVIOUS))


def replace(path: Path, data: bytes) -> None:
    """Write the file in one step. Raises ``OSError``."""
    _draft(path, data).replace(path)
    _sync(path.parent)


def _create(path: Path) -> None:
    """Write a new secret beside ``path`` and link it to that name, unless another process was first."""
    fresh = _draft(path, secrets.token_bytes(SIZE))
    try:
        os.link(fresh, path)  # unlike rename, link never replaces the secret of another process
    except FileExistsError:
        return
    finally:
        fresh.unlink()
    _sync(path.parent)


def _draft(path: Path, data: bytes) -> Path:
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return fresh


def _sync(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
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


# Exchange


def begun(data: bytes) -> bytes:
    """A new secret beside the present one. One that is exchanged already stays as it is."""
    return data + secrets.token_bytes(SIZE) + _NEXT if len(data) == SIZE else data


def turned(data: bytes) -> bytes:
    """The new secret proves; one for which that is so already stays as it is."""
    return data[SIZE : 2 * SIZE] + data[:SIZE] + _PREVIOUS if data[-1:] == _NEXT and len(data) == _TWO else data


def ended(data: bytes) -> bytes:
    """Only the secret that proves is left."""
    return data[:SIZE]


@final
class MeshSecret(Prover):
    """What a node proves with, and what it accepts. ``data`` is the content of the file. Raises ``ValueError``."""

    def __init__(self, data: bytes) -> None:
        self._all: tuple[bytes, ...] = ()
        self.take(data)

    def take(self, data: bytes) -> None:
        """Go by another content of the file from now on. Raises ``ValueError``."""
        if not is_secret(data):
            raise ValueError(f"the secret of a mesh has {SIZE} bytes, not {len(data)}")
        self._all = (data[:SIZE],) if len(data) == SIZE else (data[:SIZE], data[SIZE : 2 * SIZE])

    def prove(self, purpose: str, *parts: bytes) -> bytes:
        return prove(self._all[0], purpose, *parts)

    def verifies(self, proof: bytes, purpose: str, *parts: bytes) -> bool:
        return any(verify(secret, proof, purpose, *parts) for secret in self._all)

    def marks(self) -> list[str]:
        """What stands for each secret; the first one is proved with. It tells nothing of them."""
        return [prove(secret, _MARK).hex()[:16] for secret in self._all]
