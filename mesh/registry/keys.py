"""The keys of the mesh in etcd.

Several meshes may share one etcd, so all keys of a mesh are below ``/mesh/{mesh}/``. What always holds: a name that
passed ``checked`` cannot address the keys of another mesh or another kind, because it has no slash.
"""

from __future__ import annotations

from typing import Final, final
from urllib.parse import quote

MAX_NAME: Final = 512
"""Longest name in bytes. etcd has no limit of its own below the size of a request (1.5 MB); every node keeps names of
vehicles in memory, so their size is bounded here."""


def checked(kind: str, name: str) -> str:
    """``name``, if it may be one part of a key. Raises ValueError otherwise."""
    if not name:
        raise ValueError(f"the name of a {kind} must not be empty")
    if "/" in name or "\0" in name:
        raise ValueError(f"the name of a {kind} must have no '/' and no NUL, and {name!r} has one")
    if len(name) > MAX_NAME or len(name.encode()) > MAX_NAME:
        raise ValueError(f"the name of a {kind} must have at most {MAX_NAME} bytes, not {len(name.encode())}")
    return name


def after(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with ``prefix``: the prefix with its last byte, which must not be
    0xff, plus one."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


@final
class Keys:
    """The keys of one mesh."""

    __slots__ = (
        "answers", "asked", "audit", "bans", "confirmed", "current", "epochs", "generation", "journals", "kept",
        "kicked", "kicks", "last", "members", "mesh", "proposed", "revisions", "revoked", "run", "vehicles", "votes",
    )  # fmt: skip

    def __init__(self, mesh: str) -> None:
        self.mesh = checked("mesh", mesh)
        root = f"/mesh/{mesh}/".encode()
        self.vehicles = root + b"vehicles/"
        self.members = root + b"members/"
        self.epochs = root + b"epochs/"
        self.journals = root + b"journals/"
        self.generation = root + b"generation"
        self.kept = root + b"kept/"
        self.run = root + b"run"
        self.audit = root + b"audit/"
        self.revoked = root + b"revoked/"  # one watch follows both:
        self.bans = self.revoked + b"bans/"
        self.kicks = self.revoked + b"kicks/"
        self.kicked = root + b"kicked/"
        settings = root + b"settings/"
        self.revisions = settings + b"revisions/"
        self.current = settings + b"current"
        self.proposed = settings + b"proposed"
        self.last = settings + b"last"
        self.votes = settings + b"votes/"
        self.confirmed = settings + b"confirmed/"
        self.asked = settings + b"asked/"
        self.answers = settings + b"answers/"

    def vehicle(self, vehicle: str) -> bytes:
        return self.vehicles + checked("vehicle", vehicle).encode()

    def member(self, name: str) -> bytes:
        return self.members + checked("member", name).encode()

    def revision(self, number: int) -> bytes:
        """The digits make etcd sort the revisions by their numbers."""
        return self.revisions + b"%010d" % number

    def ban(self, kind: str, value: str) -> bytes:
        """The value may have slashes, which are quoted."""
        return self.bans + f"{checked('kind of ban', kind)}/{quote(value, safe='')}".encode()

    def kick(self, number: str) -> bytes:
        return self.kicks + checked("kick", number).encode()

    def kicked_by(self, number: str, name: str) -> bytes:
        """The answer of a node to a kick; without a name, their prefix."""
        return self.kicked + f"{checked('kick', number)}/{name}".encode()

    def vote(self, name: str) -> bytes:
        return self.votes + checked("member", name).encode()

    def confirmation(self, name: str) -> bytes:
        return self.confirmed + checked("member", name).encode()

    def answer(self, question: bytes, name: str) -> bytes:
        """The answer of a node to a question, whose key is below ``asked``; without a name, their prefix."""
        return self.answers + question[len(self.asked) :] + b"/" + name.encode()

    def journal(self, name: str) -> bytes:
        return self.journals + checked("member", name).encode()

    def kept_by(self, vehicle: str, edge: str) -> bytes:
        """Says that ``edge`` keeps sessions of a vehicle that belongs to another edge."""
        return self.kept_of(vehicle) + checked("edge", edge).encode()

    def kept_of(self, vehicle: str) -> bytes:
        return self.kept + checked("vehicle", vehicle).encode() + b"/"

    def epoch(self, name: str) -> bytes:
        return self.epochs + checked("member", name).encode()
