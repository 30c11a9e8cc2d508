"""The provider for a file of passwords' hashes.

It knows names, hashes and CONNECT: never topics. What always holds:

* a name that is not in the file takes as long as one that is: one of the file's hashes is verified, always the same;
* a password is hashed in a thread (``hashing``), after ``attempts`` allowed a look at it;
* the file is watched; a name that was removed, or whose hash changed, is not admitted from then on, and its connections
  end.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Final, NamedTuple, final

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.policy.attempts import Attempts
from mesh.policy.hashes import MADE, make_hash
from mesh.policy.hashing import Hasher, Proofs
from mesh.policy.passwordfile import read_passwords
from mesh.policy.providers import NEXT, Named, Provider, Verdict
from mesh.policy.watched import WatchedFile
from mesh.transport.origin import network_of
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import BAD_USER_NAME_OR_PASSWORD

_LONGEST: Final = 4096
"""Bytes of a password that are looked at; a longer one is wrong."""


log = logging.getLogger(__name__)


class _Content(NamedTuple):
    """The hashes of a file by name, those that unknown names are verified with, and what changed."""

    hashes: dict[str, str]
    decoys: list[str]
    what: str


@final
class Passwords(Provider):
    """``named``: the name in a CONNECT that the password is for."""

    def __init__(self, name: str, path: Path, named: Named, attempts: Attempts) -> None:
        super().__init__(name, refusal=BAD_USER_NAME_OR_PASSWORD)
        self.lists = True
        self._named = named
        self._attempts = attempts
        self._hasher = Hasher()
        self._proofs = Proofs()
        self._secret = secrets.token_bytes(32)
        self._hashes: dict[str, str] = {}
        self._decoys: list[str] = []
        self._file = WatchedFile(path, lambda: self._read(path), self._take)

    async def start(self) -> None:
        """Raises ``OSError`` or ``PasswordFileError`` if the file cannot be used."""
        await self._file.start()

    async def stop(self) -> None:
        await self._file.stop()
        self._hasher.close()

    def decide(self, connect: Connect, peer: Peer) -> Verdict | Awaitable[Verdict]:
        """Raises ``Refused``, and so does the awaitable: 0x86 (4 before MQTT 5.0) for a wrong password, 0x9F (3) if too
        many wrong ones came before, 0x89 (3) if too many wait to be hashed."""
        name, password = self._named(connect), connect.password
        if not name or password is None:
            return NEXT
        hash = self._hashes.get(name)
        self._attempts.check(peer.address, name)
        if hash is not None and self._proofs.has(name, password, hash):
            self._attempts.succeeded(peer.address, name)
            self.decisions.cached += 1
            return Claim(name, self.name, proof=_mark(hash))
        return self._verify(name, password, hash, peer)

    async def _verify(self, name: str, password: bytes, hash: str | None, peer: Peer) -> Verdict:
        attempts, address = self._attempts, peer.address
        matches = await self._hasher.verify(
            hash or self._decoy(name), password[:_LONGEST], lambda: attempts.check(address, name),
            network_of(address), attempts.trusts(address, name),
        )  # fmt: skip
        if hash is None:
            return NEXT
        if not matches or len(password) > _LONGEST:
            attempts.failed(address, name)
            raise Refused(BAD_USER_NAME_OR_PASSWORD, f"the client at {peer} gave a wrong password for {name!r:.80}")
        attempts.succeeded(address, name)
        if self._hashes.get(name) == hash:
            self._proofs.add(name, password, hash)
        return Claim(name, self.name, proof=_mark(hash))

    def unknown(self, connect: Connect, peer: Peer) -> None:
        if self._named(connect) and connect.password is not None:
            self._attempts.failed(peer.address, self._named(connect))

    def bars(self, address: str) -> bool:
        return self._attempts.bars(address)

    def holds(self, claim: Claim) -> bool:
        hash = self._hashes.get(claim.name)
        return hash is not None and claim.proof == _mark(hash)

    def knows(self, name: str) -> bool:
        return name in self._hashes

    def fault(self) -> str:
        return self._file.fault

    def in_force(self) -> dict[str, object]:
        return {"password": str(self._file.path), "users": len(self._hashes)}

    def _decoy(self, name: str) -> str:
        """A hash that costs what those of the file cost; always the same for a name, so that it tells nothing."""
        key = blake2b(name.encode(errors="surrogatepass"), key=self._secret, digest_size=8).digest()
        return self._decoys[int.from_bytes(key, "big") % len(self._decoys)]

    def _read(self, path: Path) -> _Content:
        """In a thread: a file may have half a million users."""
        hashes, before = read_passwords(path), self._hashes
        added, removed = len(hashes.keys() - before.keys()), len(before.keys() - hashes.keys())
        changed = sum(1 for name, hash in hashes.items() if before.get(name, hash) != hash)
        what = f"{added} users added, {removed} removed, {changed} have another password"
        return _Content(hashes, list(hashes.values()) or [make_hash(self._secret, MADE)], what)

    def _take(self, content: _Content) -> None:
        self._hashes, self._decoys, what = content
        log.info("%s: %s", self._file.path, what)
        self.changed()


def _mark(hash: str) -> str:
    """What a claim rests on: it tells one hash of a name from another."""
    return sha256(hash.encode()).hexdigest()[:16]
