"""The users of the topology: back ends with a password, which they send or prove by SCRAM-SHA-256.

It knows names, digests and verifiers: never topics. What always holds: the time to compare a password does not depend
on the password, nor on whether the user exists; a verifier is made in a thread of its own, and only for a password that
is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Final, final

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.policy.attempts import Attempts
from mesh.policy.providers import NEXT, Provider, Verdict
from mesh.policy.scram import SCRAM_SHA_256, ScramProof, Verifier, Verifiers, make_verifier
from mesh.transport.authentication import Proof
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import BAD_USER_NAME_OR_PASSWORD

USERS: Final = "users"


@final
class Users(Provider):
    """``passwords``: by the name of the user. ``seal`` makes a text of a digest that tells nothing of it. ``before``:
    the users that these replace."""

    method = SCRAM_SHA_256
    refusal = BAD_USER_NAME_OR_PASSWORD

    def __init__(
        self,
        passwords: Mapping[str, str],
        attempts: Attempts,
        seal: Callable[[bytes], str],
        before: Users | None = None,
    ) -> None:
        super().__init__(USERS)
        self._passwords = dict(passwords)
        self._digests = {name: _digest(password.encode()) for name, password in passwords.items()}
        self._attempts = attempts
        self._seal = seal
        known = {} if before is None else before.known()
        self._verifiers = Verifiers(
            {name: known[name, word] for name, word in passwords.items() if (name, word) in known}
        )

    def known(self) -> dict[tuple[str, str], Verifier]:
        """The verifiers that are made already, by name and password."""
        verifiers = self._verifiers.known
        return {(name, self._passwords[name]): verifier for name, verifier in verifiers.items()}

    async def start(self) -> None:
        """Make the verifiers that are missing: some milliseconds each."""
        known = self._verifiers.known
        fresh = {name: word for name, word in self._passwords.items() if name not in known}
        if fresh:
            made = await asyncio.to_thread(lambda: {name: make_verifier(word) for name, word in fresh.items()})
            self._verifiers.take({**known, **made})

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

    def begin(self, peer: Peer) -> Proof:
        return ScramProof(self._verifiers, self.name, self._attempts, peer.address)

    def holds(self, claim: Claim) -> bool:
        """A changed password concerns new connections only."""
        return self.has(claim.name)

    def has(self, name: str) -> bool:
        """Whether a name has a password."""
        return name in self._digests

    def in_force(self) -> dict[str, object]:
        return {"users": {name: self._seal(digest) for name, digest in sorted(self._digests.items())}}


def _digest(password: bytes) -> bytes:
    """Digests have equal lengths, so the time to compare them does not reveal the length of the password."""
    return sha256(password).digest()


_NO_DIGEST: Final = bytes(32)
