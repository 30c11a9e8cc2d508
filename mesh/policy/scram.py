"""SCRAM-SHA-256 as an authentication method of MQTT (RFC 5802, RFC 7677): the server's side.

A client proves that it knows a password without sending it; the server proves that it knows the verifier. It knows
verifiers and nonces. It must never know packets. What always holds: a stored verifier is not sufficient to log in; the
server answers an unknown name like a known one until the last message; the time of a comparison does not depend on the
compared values.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import unicodedata
from collections.abc import Mapping
from hashlib import pbkdf2_hmac, sha256
from hmac import compare_digest, digest
from pathlib import Path
from typing import Final, NamedTuple, final

from mesh.broker.claim import Claim
from mesh.broker.peer import Peer
from mesh.policy.attempts import Attempts
from mesh.policy.providers import Provider
from mesh.policy.watched import WatchedFile
from mesh.private import read_given
from mesh.transport.authentication import Proof
from mesh.transport.refusal import Refused
from mesh.wire.reasons import BAD_AUTHENTICATION_METHOD, NOT_AUTHORIZED

SCRAM_SHA_256: Final = "SCRAM-SHA-256"
ITERATIONS: Final = 4096  # RFC 7677 section 4: at least
_SALT: Final = 16
_NONCE: Final = 18
_MAX_MESSAGE: Final = 1024  # a message with a name and two nonces has some hundred bytes


class Verifier(NamedTuple):
    """The stored form of a password (RFC 5802 section 3)."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes


class VerifierError(ValueError):
    """A line of a file of verifiers is invalid; the message names the line and the right form."""


def make_verifier(password: str, iterations: int = ITERATIONS, salt: bytes = b"") -> Verifier:
    """The verifier of a password, with a random salt if none is given."""
    salt = salt or secrets.token_bytes(_SALT)
    # RFC 5802 prepares passwords with SASLprep; NFKC is its main part.
    salted = pbkdf2_hmac("sha256", unicodedata.normalize("NFKC", password).encode(), salt, iterations)
    stored = sha256(digest(salted, b"Client Key", sha256)).digest()
    return Verifier(iterations, salt, stored, digest(salted, b"Server Key", sha256))


def write_line(name: str, verifier: Verifier) -> str:
    """A line of a file of verifiers: ``name:SCRAM-SHA-256$iterations:salt$stored key:server key`` (base64)."""
    salt, stored, server = (_to_base64(part) for part in verifier[1:])
    return f"{name}:{SCRAM_SHA_256}${verifier.iterations}:{salt}${stored}:{server}"


def read_verifiers(path: Path) -> dict[str, Verifier]:
    """The verifiers in a file: one line each, in the form of ``write_line``; lines that begin with ``#`` are comments.

    Raises ``OSError`` (``NotPrivate`` if other users can have changed the file), ``VerifierError``.
    """
    found: dict[str, Verifier] = {}
    for number, line in enumerate(read_given(path).decode().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip().partition(f":{SCRAM_SHA_256}$")
        try:
            found[name] = _parse(rest)
        except (ValueError, binascii.Error):
            right = f"name:{SCRAM_SHA_256}${ITERATIONS}:salt$stored key:server key"
            raise VerifierError(
                f"{path}:{number}: this is not a verifier; write {right}, as printed by mesh scram"
            ) from None
    return found


def _parse(text: str) -> Verifier:
    head, keys = text.split("$")
    iterations, salt = head.split(":")
    stored, server = (base64.b64decode(part, validate=True) for part in keys.split(":"))
    if int(iterations) < 1 or len(stored) != sha256().digest_size or len(server) != sha256().digest_size:
        raise ValueError(text)
    return Verifier(int(iterations), base64.b64decode(salt, validate=True), stored, server)


def name_in(first: bytes) -> str:
    """The name in a client's first message; empty if there is none."""
    if len(first) > _MAX_MESSAGE:
        return ""
    try:
        return _unescape(_fields(first.decode().split(",", 2)[2])["n"])
    except (ValueError, LookupError):
        return ""


@final
class Verifiers:
    """Verifiers by name. An unknown name has one too, with a constant salt, that no password matches."""

    __slots__ = ("_secret", "known")

    def __init__(self, known: Mapping[str, Verifier]) -> None:
        self.known = known
        self._secret = secrets.token_bytes(sha256().digest_size)

    def take(self, known: Mapping[str, Verifier]) -> None:
        """Use these for exchanges that begin from now on."""
        self.known = known

    def of(self, name: str) -> Verifier:
        """The verifier of a name."""
        known = self.known.get(name)
        if known is not None:
            return known
        salt = digest(self._secret, name.encode(), sha256)[:_SALT]
        return Verifier(ITERATIONS, salt, secrets.token_bytes(sha256().digest_size), b"")


@final
class ScramFile(Provider):
    """The provider for a file of verifiers. ``attempts`` slows who guesses passwords. The file is watched: a vehicle
    that it does not have with the same verifier is not admitted now."""

    def __init__(self, name: str, path: Path, attempts: Attempts) -> None:
        super().__init__(name, SCRAM_SHA_256, refusal=BAD_AUTHENTICATION_METHOD)
        self.lists = True
        self._attempts = attempts
        self._verifiers = Verifiers({})
        self._file = WatchedFile(path, lambda: read_verifiers(path), self._take)

    async def start(self) -> None:
        """Raises ``OSError`` or ``VerifierError`` if the file cannot be used."""
        await self._file.start()

    async def stop(self) -> None:
        await self._file.stop()

    def bars(self, address: str) -> bool:
        return self._attempts.bars(address)

    def begin(self, peer: Peer) -> Proof:
        return ScramProof(self._verifiers, self.name, self._attempts, peer.address)

    def recognizes(self, data: bytes) -> bool:
        return self.knows(name_in(data))

    def holds(self, claim: Claim) -> bool:
        verifier = self._verifiers.known.get(claim.name)
        return verifier is not None and claim.proof == _mark(verifier)

    def knows(self, name: str) -> bool:
        return name in self._verifiers.known

    def fault(self) -> str:
        return self._file.fault

    def in_force(self) -> dict[str, object]:
        return {"scram": str(self._file.path), "vehicles": len(self._verifiers.known)}

    def _take(self, known: dict[str, Verifier]) -> None:
        self._verifiers.take(known)
        self.changed()


def _mark(verifier: Verifier) -> str:
    """What a claim rests on: it tells one verifier of a name from another."""
    return sha256(verifier.stored_key).hexdigest()[:16]


@final
class ScramProof(Proof):
    """One exchange: client-first, server-first, client-final, server-final (RFC 5802 section 5). ``provider`` is the
    name in its claim; ``nonce`` is the server's part of the nonce."""

    def __init__(
        self, verifiers: Verifiers, provider: str, attempts: Attempts, address: str = "", nonce: str = ""
    ) -> None:
        super().__init__()
        self._verifiers = verifiers
        self._provider = provider
        self._attempts = attempts
        self._address = address
        self._own_nonce = nonce or _to_base64(secrets.token_bytes(_NONCE))
        self._name = ""
        self._header = ""
        self._nonce = ""
        self._bare = ""
        self._challenge = ""
        self._verifier: Verifier | None = None

    def step(self, data: bytes) -> tuple[bytes, bool]:
        try:
            if len(data) > _MAX_MESSAGE:
                raise ValueError(f"it has {len(data)} bytes, and the limit is {_MAX_MESSAGE}")
            text = data.decode()
            if self._verifier is None:
                return self._first(text), False
            return self._final(text, self._verifier), True
        except (ValueError, binascii.Error) as error:
            raise Refused(NOT_AUTHORIZED, f"SCRAM: invalid message: {error}") from None

    def _first(self, text: str) -> bytes:
        binding, authzid, bare = text.split(",", 2)
        if binding not in ("n", "y") or authzid:
            raise ValueError("channel binding and an authorization identity are not supported")
        fields = _fields(bare)
        if "m" in fields or list(fields)[:2] != ["n", "r"] or not fields["r"]:
            raise ValueError("it must begin with a name and a nonce")
        self._name = _unescape(fields["n"])
        self._header, self._bare = f"{binding},,", bare
        self._nonce = fields["r"] + self._own_nonce
        verifier = self._verifier = self._verifiers.of(self._name)
        self._challenge = f"r={self._nonce},s={_to_base64(verifier.salt)},i={verifier.iterations}"
        return self._challenge.encode()

    def _final(self, text: str, verifier: Verifier) -> bytes:
        without, _, proof = text.rpartition(",p=")
        fields = _fields(without)
        if fields.get("c") != _to_base64(self._header.encode()) or fields.get("r") != self._nonce:
            raise ValueError("the header or the nonce differs from the first message")
        message = f"{self._bare},{self._challenge},{without}".encode()
        signature = digest(verifier.stored_key, message, sha256)
        key = bytes(a ^ b for a, b in zip(base64.b64decode(proof, validate=True), signature, strict=True))
        attempts = self._attempts
        attempts.check(self._address, self._name)  # only now: many exchanges may be open at the same time
        if not compare_digest(sha256(key).digest(), verifier.stored_key):
            attempts.failed(self._address, self._name)
            raise Refused(NOT_AUTHORIZED, f"SCRAM: {self._name!r} did not prove that it knows the password")
        attempts.succeeded(self._address, self._name)
        self.claim = Claim(self._name, self._provider, proof=_mark(verifier))
        return b"v=" + base64.b64encode(digest(verifier.server_key, message, sha256))


def _fields(text: str) -> dict[str, str]:
    """``a=x,b=y`` as a dictionary, in its order."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if len(name) != 1 or not equals or name in found:
            raise ValueError(f"{part!r} is not an attribute")
        found[name] = value
    return found


def _unescape(name: str) -> str:
    """A name in which ``=2C`` stands for a comma and ``=3D`` for an equals sign (RFC 5802 section 5.1)."""
    for part in name.split("=")[1:]:
        if part[:2] not in ("2C", "3D"):
            raise ValueError("the name has a = that is neither =2C nor =3D")
    return name.replace("=2C", ",").replace("=3D", "=")


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
