"""Where things are in etcd.

Several meshes share one etcd, so that all keys of a mesh are below ``/mesh/{mesh}/``. What always holds: a name that
has passed ``checked`` cannot reach into the keys of another mesh or another kind, because it holds no slash.
"""

from __future__ import annotations

from typing import Final, final

MAX_NAME: Final = 512
"""Longest name in bytes. etcd has no limit of its own below the size of a request (1.5 MB); a vehicle's name is kept in
the memory of every node, so that it must not be of any size."""


def checked(kind: str, name: str) -> str:
    """``name``, if it can be one part of a key; else ValueError says why not."""
    if not name:
        raise ValueError(f"the name of a {kind} must not be empty")
    if "/" in name or "\0" in name:
        raise ValueError(f"the name of a {kind} must have no '/' and no NUL, not {name!r}")
    if len(name) > MAX_NAME or len(name.encode()) > MAX_NAME:
        raise ValueError(f"the name of a {kind} must have at most {MAX_NAME} bytes, not {len(name.encode())}")
    return name


def after(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with ``prefix``: the prefix with its last byte, which is not 0xff,
    raised by one."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


@final
class Keys:
    """The keys of one mesh."""

    __slots__ = ("epochs", "members", "mesh", "vehicles")

    def __init__(self, mesh: str) -> None:
        self.mesh = checked("mesh", mesh)
        root = f"/mesh/{mesh}/".encode()
        self.vehicles = root + b"vehicles/"
        self.members = root + b"members/"
        self.epochs = root + b"epochs/"

    def vehicle(self, vehicle: str) -> bytes:
        return self.vehicles + checked("vehicle", vehicle).encode()

    def member(self, name: str) -> bytes:
        return self.members + checked("member", name).encode()

    def epoch(self, name: str) -> bytes:
        return self.epochs + checked("member", name).encode()
