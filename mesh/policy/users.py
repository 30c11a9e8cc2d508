"""The users of the topology: back ends with a password, which they send or prove by SCRAM-SHA-256; and what the name of
every back end must be.

It knows names, digests and verifiers: never topics. What always holds: the time to compare a password does not depend
on the password, nor on whether the user exists; a verifier is made in a thread of its own, and only for a password that
is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Final, NamedTuple, final

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.policy.anonymous import ANONYMOUS
from mesh.policy.attempts import Attempts
from mesh.policy.providers import NEXT, Provider, Verdict
from mesh.policy.scram import SCRAM_SHA_256, ScramProof, Verifier, Verifiers, make_verifier, name_in
from mesh.policy.secretfiles import SecretFiles
from mesh.policy.secrettext import SecretText
from mesh.transport.authentication import Proof
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED

USERS: Final = "users"
LONGEST: Final = 1024
"""Characters of a name that a provider gives."""


def bind_user(connect: Connect, claim: Claim, proven: bool) -> None:
    """Check the claim of a back end. A name from a token or another server may be any text of JSON, also one that no
    text of MQTT can be. Raises ``Refused`` with 0x87."""
    name = claim.name
    if claim.provider != ANONYMOUS and not (0 < len(name) <= LONGEST and name.isprintable()):
        raise Refused(
            NOT_AUTHORIZED, f"the name {name!r:.80} of a back end is not text of 1 to {LONGEST} printable characters"
        )


@final
class _Read(NamedTuple):
    password: str
    verifier: Verifier


@final
class Users(Provider):
    """``passwords``: by the name of the user; a file of one is watched. ``seal`` makes a text of a digest that tells
    nothing of it. ``before``: the users that these replace."""

    def __init__(
        self,
        passwords: Mapping[str, SecretText],
        attempts: Attempts,
        seal: Callable[[bytes], str],
        before: Users | None = None,
    ) -> None:
        super().__init__(USERS, SCRAM_SHA_256, refusal=BAD_USER_NAME_OR_PASSWORD)
        self.lists = True
        self._sources = dict(passwords)
        self._attempts = attempts
        self._seal = seal
        self._known = {} if before is None else before.known()
        self._passwords: dict[str, str] = {}
        self._digests: dict[str, bytes] = {}
        self._verifiers = Verifiers({})
        self._secrets = SecretFiles(self._sources, self._read, self._take)

    def known(self) -> dict[tuple[str, str], Verifier]:
        """The verifiers that are made already, by name and password."""
        verifiers = self._verifiers.known
        return {(name, self._passwords[name]): verifier for name, verifier in verifiers.items()}

    async def start(self) -> None:
        """Read the passwords, and make the verifiers that are missing: some milliseconds each. Raises
        ``SecretUnusable``."""
        await self._secrets.start()

    async def stop(self) -> None:
        await self._secrets.stop()

    def _read(self, name: str) -> _Read:
        """In a thread."""
        word = self._sources[name].read(f"backends.users.{name}.password")
        return _Read(word, self._known.get((name, word)) or make_verifier(word))

    def _take(self, fresh: Mapping[str, _Read]) -> None:
        self._passwords |= {name: read.password for name, read in fresh.items()}
        self._digests |= {name: _digest(read.password.encode()) for name, read in fresh.items()}
        self._verifiers.take({**self._verifiers.known, **{name: read.verifier for name, read in fresh.items()}})

    def decide(self, connect: Connect, peer: Peer) -> Verdict:
        """Raises ``Refused`` with 0x86 (4 before MQTT 5.0) for a wrong password, and with 0x9F (3) if too many wrong
        ones came before."""
        name = connect.username
        if name is None:
            return NEXT
        known = self._digests.get(name)
        self._attempts.check(peer.address, name)
        # An unknown name costs the same comparison, so that the time does not reveal which names exist.
        matches = compare_digest(_digest(connect.password or b""), known if known is not None else _NO_DIGEST)
        if known is None:
            return NEXT
        if not matches:
            self._attempts.failed(peer.address, name)
            raise Refused(BAD_USER_NAME_OR_PASSWORD, f"the back end at {peer} gave a wrong password")
        self._attempts.succeeded(peer.address, name)
        return Claim(name, self.name)

    def unknown(self, connect: Connect, peer: Peer) -> None:
        if connect.username is not None:
            self._attempts.failed(peer.address, connect.username)

    def bars(self, address: str) -> bool:
        return self._attempts.bars(address)

    def begin(self, peer: Peer) -> Proof:
        return ScramProof(self._verifiers, self.name, self._attempts, peer.address)

    def recognizes(self, data: bytes) -> bool:
        return self.knows(name_in(data))

    def holds(self, claim: Claim) -> bool:
        """A changed password concerns new connections only."""
        return self.knows(claim.name)

    def knows(self, name: str) -> bool:
        return name in self._sources

    def fault(self) -> str:
        return self._secrets.fault()

    def in_force(self) -> dict[str, object]:
        return {"users": {name: self._seal(digest) for name, digest in sorted(self._digests.items())}}


def _digest(password: bytes) -> bytes:
    """Digests have equal lengths, so the time to compare them does not reveal the length of the password."""
    return sha256(password).digest()


_NO_DIGEST: Final = bytes(32)
