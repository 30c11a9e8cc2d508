"""How the two ends of a device link prove to each other that they belong to the mesh.

Both know the mesh secret; neither sends it. It knows names, instances and challenges: never sockets. The exchange:

    door → edge   HELLO      version, nonce, instance, names of door and edge
    edge → door   CHALLENGE  nonce, instance, proof of the edge
    door → edge   PROOF      proof of the door
    edge → door   WELCOME

A proof is an HMAC over both nonces, both instances and both names, for a purpose that names the direction: so a proof
cannot be used again, in the other direction, by another node, or on another link. What always holds: nothing that the
other end claims is trusted before its proof; an *instance* (16 bytes: epoch, then random) identifies one process, so
that frames of two processes with one name are never mixed up.
"""

from __future__ import annotations

import os
import struct
from typing import Final, final

from mesh.transport.frame import LinkError

VERSION: Final = 4
NONCE: Final = 32
INSTANCE: Final = 16
PROOF_SIZE: Final = 32
EDGE: Final = "device link, edge to door"
DOOR: Final = "device link, door to edge"


class Prover:
    """Base class. A proof is HMAC-SHA256 with the mesh secret over a purpose and parts, unambiguously joined; 32
    bytes."""

    def prove(self, purpose: str, *parts: bytes) -> bytes:
        raise NotImplementedError

    def verifies(self, proof: bytes, purpose: str, *parts: bytes) -> bool:
        """Whether it is a proof of these parts. The time that this takes tells nothing of the secret."""
        raise NotImplementedError


def new_instance(epoch: int) -> bytes:
    """An instance for this process. Of two instances of one name, the one with the greater epoch is the newer."""
    return struct.pack("!Q", epoch) + os.urandom(INSTANCE - 8)


def epoch_of(instance: bytes) -> int:
    """The epoch in an instance."""
    return int.from_bytes(instance[:8], "big")


@final
class Asking:
    """The door's side. ``edge`` is the node that must answer; ``edge_instance`` is known after ``challenged``."""

    __slots__ = ("_hello", "_prover", "edge", "edge_instance")

    def __init__(self, door: str, edge: str, instance: bytes, prover: Prover) -> None:
        self.edge = edge
        self.edge_instance = b""
        self._prover = prover
        self._hello = bytes((VERSION,)) + os.urandom(NONCE) + instance + _name(door) + _name(edge)

    def hello(self) -> bytes:
        """The body of HELLO."""
        return self._hello

    def challenged(self, body: bytes) -> bytes:
        """The body of PROOF, in answer to a CHALLENGE. Raises ``LinkError`` if the edge did not prove that it is
        ``edge``."""
        if len(body) != NONCE + INSTANCE + PROOF_SIZE:
            raise LinkError("the answer to HELLO is not a CHALLENGE")
        said, proof = body[: NONCE + INSTANCE], body[NONCE + INSTANCE :]
        if not self._prover.verifies(proof, EDGE, self._hello, said):
            raise LinkError(f"the process at the address of {self.edge} does not know the mesh secret")
        self.edge_instance = said[NONCE:]
        return self._prover.prove(DOOR, self._hello, said)


@final
class Answering:
    """The edge's side. ``door`` and ``instance`` may be trusted only after ``proved``."""

    __slots__ = ("_edge", "_hello", "_instance", "_prover", "_said", "door", "instance")

    def __init__(self, edge: str, instance: bytes, prover: Prover) -> None:
        self._edge = edge
        self._instance = instance
        self._prover = prover
        self._hello = b""
        self._said = b""
        self.door = ""
        self.instance = b""

    def greeted(self, body: bytes) -> bytes:
        """The body of CHALLENGE, in answer to a HELLO. Raises ``LinkError`` if the HELLO has another version or is for
        another node."""
        if self._hello or len(body) < 1 + NONCE + INSTANCE + 2:
            raise LinkError("the first frame is not a HELLO")
        if body[0] != VERSION:
            raise LinkError(f"the door uses version {body[0]} of the device link; this edge uses {VERSION}")
        self.instance = body[1 + NONCE : 1 + NONCE + INSTANCE]
        self.door, pos = _read_name(body, 1 + NONCE + INSTANCE)
        asked, _ = _read_name(body, pos)
        if asked != self._edge:
            raise LinkError(f"the door wants to connect to {asked!r}; this is {self._edge!r}")
        self._hello = body
        self._said = os.urandom(NONCE) + self._instance
        return self._said + self._prover.prove(EDGE, body, self._said)

    def proved(self, body: bytes) -> None:
        """Check a PROOF. Raises ``LinkError`` if it is wrong."""
        if not self._said or not self._prover.verifies(body, DOOR, self._hello, self._said):
            raise LinkError("the other end does not know the mesh secret")


def _name(value: str) -> bytes:
    data = value.encode()[:255]
    return bytes((len(data),)) + data


def _read_name(body: bytes, pos: int) -> tuple[str, int]:
    end = pos + 1 + (body[pos] if pos < len(body) else 0)
    if pos >= len(body) or end > len(body):
        raise LinkError("a name in HELLO is cut off")
    try:
        return body[pos + 1 : end].decode(), end
    except UnicodeDecodeError:
        raise LinkError("a name in HELLO is not UTF-8") from None
