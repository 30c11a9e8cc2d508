"""The certificates of the embedded etcd: kept in one folder, for its etcd and the clients of it.

It knows files and one folder. It must never know ports or processes. What always holds: the folder is complete or
absent, even if several processes create it at the same time; a file is used only if no other user of the host can have
changed it, and a key only if none can have read it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from mesh.private import make_private, read_own
from mesh.registry.errors import EtcdFailed

AUTHORITY: Final = "authority.pem"
SERVER: Final = "server"
CLIENT: Final = "client"


def certificate(folder: Path, name: str) -> Path:
    return folder / f"{name}.pem"


def key(folder: Path, name: str) -> Path:
    return folder / f"{name}.key"


def keep_certificates(folder: Path, host: str) -> None:
    """Create the authority and the certificates of server and client in ``folder``, if it does not exist. ``host`` is
    the IP address of the server.

    Raises ``EtcdFailed`` if a file is missing, ``NotPrivate`` if other users could have changed a certificate or read a
    key; ``OSError``.
    """
    if not folder.exists():
        _create(folder, host)
    make_private(folder)
    try:
        for name in (SERVER, CLIENT):
            read_own(certificate(folder, name))
            read_own(key(folder, name), secret=True)
        read_own(folder / AUTHORITY)
    except FileNotFoundError as error:
        raise EtcdFailed(f"{error.filename} is missing; remove {folder} to have new certificates made") from None


def _create(folder: Path, host: str) -> None:
    """Write the files into a new folder, and give it its name, unless another process was first."""
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}")
    make_private(draft)
    try:
        _write_all(draft, host)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_all(folder: Path, host: str) -> None:
    from mesh.registry.authority import issue  # takes 10 MB, and only a new folder needs it

    issued = issue(host)
    _write(folder / AUTHORITY, issued.authority)
    for name, pair in ((SERVER, issued.server), (CLIENT, issued.client)):
        _write(certificate(folder, name), pair.certificate)
        _write(key(folder, name), pair.key)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
