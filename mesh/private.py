"""Files and folders that other users of the host must not reach.

It knows owners and modes: never what a file means. The mesh runs as one user, and any other user of the host may be an
attacker, except root. What always holds:

- a folder of the mesh belongs to the user of the mesh and has mode 0700, or the mesh does not use it;
- a file that the mesh wrote is read only if it still belongs to the user of the mesh, and is no symbolic link;
- a file that an operator wrote is read only if no other user can have written it; a secret also only if no other user
  can have read it;
- owner and mode are those of the open file, so that nothing can be exchanged between the check and the use.

PostgreSQL has the same rules for its data folder and the keys of its certificates.
"""

from __future__ import annotations

import logging
import os
import pwd
import stat
from pathlib import Path
from typing import BinaryIO, Final

log = logging.getLogger(__name__)

ROOT: Final = 0
FOLDER: Final = 0o700
SECRET: Final = 0o600
_OTHERS: Final = 0o077
_WRITABLE: Final = 0o022


class NotPrivate(PermissionError):
    """Another user can have read or changed a file or folder; the message says which, and what would be right."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.strerror = sentence


def make_private(folder: Path) -> None:
    """Create the folder and its parents with mode 0700; take the access of other users away from one that exists.

    Raises ``NotPrivate`` if it belongs to another user, or if other users could write to it and an entry belongs to one
    of them; ``OSError`` if it can be neither created nor opened.
    """
    _create(folder)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError as error:
        raise _denied(folder, error, "choose another folder, or run: chown -R {own} {path}") from None
    try:
        about = os.fstat(handle)
        if about.st_uid != os.geteuid():
            owner, own = user_name(about.st_uid), user_name(os.geteuid())
            raise NotPrivate(
                f"{folder} belongs to {owner}, and the mesh runs as {own}; choose another folder, or run: "
                f"chown -R {own} {folder}"
            )
        mode = stat.S_IMODE(about.st_mode)
        if mode & stat.S_ISVTX:
            raise NotPrivate(f"{folder} has mode {mode:04o}: it is for all users; choose a folder for the mesh alone")
        if mode & _OTHERS:
            _tighten(folder, handle, mode)  # first, so that no entry can appear after they are looked at
            log.warning("%s had mode %04o: other users could enter it; now it has %04o", folder, mode, mode & FOLDER)
        if mode & _WRITABLE:
            _check_entries(folder, handle)
    finally:
        os.close(handle)


def _tighten(folder: Path, handle: int, mode: int) -> None:
    try:
        os.fchmod(handle, mode & FOLDER)
        why = "the file system keeps no modes"
        kept = stat.S_IMODE(os.fstat(handle).st_mode)
    except OSError as error:
        why, kept = f"{error.strerror}", mode
    if kept & _OTHERS:
        raise NotPrivate(
            f"{folder} belongs to {user_name(os.geteuid())} and has mode {kept:04o}: other users can enter it, and the "
            f"mesh cannot change that: {why}; choose a folder on another file system, or run: chmod 700 {folder}"
        )


def _denied(path: Path, error: PermissionError, right: str) -> NotPrivate:
    """The mesh may not open a file or folder. ``right``: what would be right."""
    own = user_name(os.geteuid())
    try:
        about = path.stat()
    except OSError as cause:
        return NotPrivate(f"{path} cannot be reached by {own}, as whom the mesh runs: {cause.strerror}")
    owner, mode = user_name(about.st_uid), stat.S_IMODE(about.st_mode)
    return NotPrivate(
        f"{path} belongs to {owner} and has mode {mode:04o}; {own}, as whom the mesh runs, may not open it: "
        f"{error.strerror}; {right.format(own=own, path=path, owner=owner)}"
    )


def _create(folder: Path) -> None:
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        try:
            path.mkdir(mode=FOLDER, exist_ok=True)
        except PermissionError as error:
            raise _denied(path.parent, error, f"{path} cannot be made there: choose another folder") from None


def _check_entries(folder: Path, handle: int) -> None:
    for name in os.listdir(handle):
        try:
            owner = os.stat(name, dir_fd=handle, follow_symlinks=False).st_uid
        except FileNotFoundError:
            continue  # it was temporary
        if owner != os.geteuid():
            raise NotPrivate(
                f"other users could write to {folder}, and {folder / name} belongs to {user_name(owner)}; remove it if "
                "the mesh has no use for it, or choose another folder"
            )


def read_own(path: Path, secret: bool = False) -> bytes:
    """The content of a file that the mesh itself wrote. ``secret``: no other user may be able to read it.

    Raises ``NotPrivate``, ``FileNotFoundError``, ``OSError``.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError as error:
        raise _denied(path, error, "run this as {owner} if the mesh is theirs; if it is yours, remove it") from None
    except OSError:
        if path.is_symlink():
            raise NotPrivate(f"{path} is a symbolic link, which the mesh never makes; remove it") from None
        raise
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        if about.st_uid != os.geteuid():
            owner, own = user_name(about.st_uid), user_name(os.geteuid())
            raise NotPrivate(
                f"{path} belongs to {owner} and this command runs as {own}; run it as {owner} if the mesh is theirs; "
                "if it is yours, remove the file"
            )
        _check_mode(path, about.st_mode, SECRET if secret else 0o644)
        return file.read()


def write_own(path: Path, data: bytes) -> None:
    """Write or replace a file that no other user can read; after a loss of power it has the old content or the new one.
    One process at a time may write it. Raises ``OSError``."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)  # of a process that was killed; it may have another mode
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, SECRET)
    with open(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_given(path: Path, secret: bool = False) -> bytes:
    """The content of a file that an operator wrote, such as a certificate. It may be a symbolic link, and may belong to
    root. ``secret``: only its owner may be able to read it, and the group if it belongs to root.

    Raises ``NotPrivate``, ``FileNotFoundError``, ``OSError``.
    """
    with _open(path) as file:
        about = os.fstat(file.fileno())
        _check_owner(path, about.st_uid)
        _check_mode(path, about.st_mode, _limit_of(secret, about.st_uid != os.geteuid()))
        return file.read()


def read_named(path: Path, most: int) -> bytes:
    """The first ``most`` bytes of a file that a user named on the command line. Root may name a file of any user.

    Raises ``NotPrivate`` if another user can have written it, ``OSError``.
    """
    with _open(path) as file:
        about = os.fstat(file.fileno())
        if os.geteuid() != ROOT:
            _check_owner(path, about.st_uid)
        _check_mode(path, about.st_mode, _limit_of(False, False))
        return file.read(most)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except PermissionError as error:
        raise _denied(path, error, "run: chown {own} {path}") from None


def _check_owner(path: Path, owner: int) -> None:
    own = os.geteuid()
    if owner not in (own, ROOT):
        raise NotPrivate(
            f"{path} belongs to {user_name(owner)}; it must belong to {user_name(own)} or root; "
            f"run: chown {user_name(own)} {path}"
        )


def _limit_of(secret: bool, of_root: bool) -> int:
    """The widest mode of a file that an operator wrote. The group may write what is no secret: many systems give each
    user a group of their own, and a umask of 002."""
    if not secret:
        return 0o664
    return 0o640 if of_root else SECRET


def _check_mode(path: Path, mode: int, most: int) -> None:
    found = stat.S_IMODE(mode) & 0o777
    over = found & ~most & 0o666
    if over:
        could = "change" if over & _WRITABLE else "read"
        raise NotPrivate(f"{path} has mode {found:04o}: other users could {could} it; run: chmod {most:o} {path}")


def user_name(user: int) -> str:
    """The name of a user; the number if it has none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
