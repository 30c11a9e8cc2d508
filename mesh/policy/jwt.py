"""The provider of identities that looks at tokens: in the password, or as the authentication method ``JWT``.

It knows tokens and claims: never how keys are fetched. What always holds: a token is checked in full unless the same
token was found valid before, with the keys that are in force; a claim rests on the key that signed its token, and ends
with the token; what is kept of tokens is bounded; a client that goes on with forged tokens is refused before they are
checked, as one with wrong passwords is (``attempts``).

A check takes 50 µs (RS256) to 130 µs (EdDSA), and 600 for ES384 and ES512. It runs in the loop: in a thread it would
lock the interpreter for as long.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Final, final

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.policy.attempts import Attempts
from mesh.policy.jwks import KeySource
from mesh.policy.keyset import UnknownKey
from mesh.policy.providers import NEXT, Provider, Verdict
from mesh.policy.slots import Slots
from mesh.policy.token import ForgedToken, Token, TokenError, TokenRule, is_token
from mesh.transport.authentication import Later, Proof
from mesh.transport.refusal import Refused
from mesh.wire.packets import Connect
from mesh.wire.reasons import NOT_AUTHORIZED, SERVER_BUSY

METHOD: Final = "JWT"
KNOWN: Final = 16_384  # tokens that are known to be valid; some 10 MB
FORGED: Final = 200  # a minute: a quarter of it for one vehicle from one address, 50 times as much from one address
WAITING: Final = 4096  # clients that may wait for newer keys at the same time


@final
class Tokens(Provider):
    """``keys``: where the keys come from; this provider starts and stops it. ``clock`` gives seconds since 1970.
    ``attempts`` slows clients with forged tokens."""

    def __init__(
        self, name: str, rule: TokenRule, keys: KeySource, clock: Callable[[], float] = time.time,
        attempts: Attempts | None = None,
    ) -> None:
        super().__init__(name, METHOD)
        self._attempts = attempts or Attempts(FORGED, shared=True)
        self.names_roles = True
        self._rule = rule
        self._keys = keys
        self._clock = clock
        self._known: OrderedDict[bytes, Claim] = OrderedDict()  # by digest of the token
        self._slots = Slots("keys of tokens", WAITING, 0)
        keys.changed = self._changed

    async def start(self) -> None:
        if self.folder is not None:
            self._keys.file = self.folder / f"keys-{self.name}.json"
        await self._keys.start()

    async def stop(self) -> None:
        await self._keys.stop()

    def decide(self, connect: Connect, peer: Peer) -> Verdict | Awaitable[Verdict]:
        """A password that has not the form of a token is for the next provider, as is a token of another issuer."""
        data = connect.password
        if data is None or not is_token(data):
            return NEXT
        known = self._recall(data)
        if known is not None:
            return known
        token = self._read(data)
        if not token.is_of_issuer:
            return NEXT
        try:
            return self._check(data, token, peer.address)
        except UnknownKey as error:
            newer = self._keys.newer()
            if newer is None:
                raise self._no_key(error) from None
            return self._wait(newer, data, token, peer.address)

    def begin(self, peer: Peer) -> Proof:
        return TokenProof(self, peer.address)

    def recognizes(self, data: bytes) -> bool:
        """Whether a token names an issuer of this provider: it is not checked yet."""
        try:
            return Token(data, self._rule).is_of_issuer
        except TokenError:
            return False

    def replace(self, before: Provider | None) -> Tokens:
        """Begin with the keys of the provider that this one replaces; returns this one."""
        if isinstance(before, Tokens):
            self._keys.inherit(before._keys)
        return self

    def claim_of(self, data: bytes, address: str, waited: bool) -> Claim:
        """The claim of a token that came from an address, from the keys that are here. Raises ``Refused``; and
        ``Later`` if the token names an unknown key and a newer set is looked for, unless its client has ``waited`` for
        one already."""
        known = self._recall(data)
        if known is not None:
            return known
        token = self._read(data)
        try:
            return self._check(data, token, address)
        except UnknownKey as error:
            newer = None if waited else self._keys.newer()
            if newer is None:
                raise self._no_key(error) from None
            raise Later(newer) from None

    def holds(self, claim: Claim) -> bool:
        """Whether the key that signed the token is still in force; while no key is known, every one is taken for
        that."""
        present = self._keys.present
        return not present or claim.proof.partition(" ")[0] in present.thumbprints

    def fault(self) -> str:
        return self._keys.fault

    def in_force(self) -> dict[str, object]:
        rule = self._rule
        return {
            "issuer": list(rule.issuers), "audience": list(rule.audiences), "algorithms": list(rule.algorithms),
            "leeway": rule.leeway, "vehicle": rule.vehicle, "roles": rule.roles,
            "keys": sorted(self._keys.present.thumbprints),
        }  # fmt: skip

    async def _wait(self, newer: asyncio.Task[None], data: bytes, token: Token, address: str) -> Verdict:
        """The verdict once the newer set is here, or cannot be had."""
        async with self._slots:
            await asyncio.shield(newer)
        try:
            return self._check(data, token, address)
        except UnknownKey as error:
            raise self._no_key(error) from None

    def _read(self, data: bytes) -> Token:
        try:
            return Token(data, self._rule)
        except TokenError as error:
            raise Refused(NOT_AUTHORIZED, str(error)) from None

    def _check(self, data: bytes, token: Token, address: str) -> Claim:
        """Raises ``Refused``: 0x9F (3 before MQTT 5.0) if too many forged tokens came before, else 0x87 (5); and
        ``UnknownKey`` if a newer set may have the token's key."""
        try:
            key = self._keys.present.find(token.algorithm, token.key)
            self._attempts.check(address, token.claimed())
            said = token.says(key, self._clock())
        except ForgedToken as error:
            self._attempts.failed(address, token.claimed())
            raise Refused(NOT_AUTHORIZED, str(error)) from None
        except ValueError as error:
            raise Refused(NOT_AUTHORIZED, str(error)) from None
        self._attempts.succeeded(address, said.vehicle)
        proof = f"{key.thumbprint} {said.id}".rstrip()
        claim = Claim(said.vehicle, self.name, said.roles, said.expires, proof)
        self._known[sha256(data).digest()] = claim
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return claim

    def _recall(self, data: bytes) -> Claim | None:
        """The claim of a token that was found valid before, and has not ended."""
        digest = sha256(data).digest()
        claim = self._known.get(digest)
        if claim is None:
            return None
        if claim.expires <= self._clock():
            del self._known[digest]  # the check says why it is refused
            return None
        self.decisions.cached += 1
        return claim

    def _no_key(self, error: UnknownKey) -> Refused:
        if self._keys.present:
            return Refused(NOT_AUTHORIZED, str(error))
        return Refused(SERVER_BUSY, f"there are no keys to check tokens with: {self._keys.fault or 'not fetched yet'}")

    def _changed(self) -> None:
        self._known.clear()
        self.changed()


@final
class TokenProof(Proof):
    """One exchange: the data of the first packet that has any is the token."""

    def __init__(self, tokens: Tokens, address: str) -> None:
        super().__init__()
        self._tokens = tokens
        self._address = address
        self._asked = False
        self._waited = False

    def step(self, data: bytes) -> tuple[bytes, bool]:
        if not data and not self._asked:
            self._asked = True
            return b"", False
        try:
            self.claim = self._tokens.claim_of(data, self._address, self._waited)
        except Later:
            self._waited = True
            raise
        except Refused:
            self._tokens.decisions.denied += 1
            raise
        return b"", True
