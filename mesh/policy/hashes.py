"""Hashes of passwords in their textual forms: made with argon2id, and read in the forms of other brokers.

| form | from | function |
|---|---|---|
| ``$argon2id$v=19$m=…,t=…,p=…$salt$hash`` | this mesh, Mosquitto 2.1 | argon2id (RFC 9106) |
| ``$7$iterations$salt$hash`` | Mosquitto 2 | PBKDF2 with HMAC-SHA-512 |
| ``$6$salt$hash`` | Mosquitto before 2 | SHA-512 of password and salt, once |
| ``$2b$cost$…``, ``$2a$…``, ``$2y$…`` | EMQX | bcrypt; only the first 72 bytes of a password count |
| ``$pbkdf2-sha256$i=…$salt$hash`` (also 1, 224, 384, 512) | EMQX, see ``from_emqx`` | PBKDF2 |

It knows texts and functions: never users, files or the loop; the functions take milliseconds and release the
interpreter's lock. What always holds: the time of a comparison does not depend on the compared values; a text whose
parameters would take more than some seconds or a gigabyte is refused when it is read.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from dataclasses import dataclass
from hashlib import pbkdf2_hmac, sha512
from hmac import compare_digest
from typing import Final, final

_SALT: Final = 16
_HASH: Final = 32
_MACS: Final = ("sha1", "sha224", "sha256", "sha384", "sha512")
_MOST_ITERATIONS: Final = 10_000_000
_MOST_MEMORY: Final = 1 << 20  # KiB
_MOST_TIME: Final = 100
_MOST_LANES: Final = 16
_MOST_COST: Final = 16  # of bcrypt: some seconds
_BCRYPT: Final = 72  # bytes of a password that count
_MADE: Final = 18  # bytes of a password that is made here: 144 bits

_ARGON2: Final = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,8}),t=([0-9]{1,4}),p=([0-9]{1,3})\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+"
)
_BCRYPTED: Final = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")


@final
@dataclass(frozen=True, slots=True)
class Cost:
    """Of argon2id: passes, and memory in KiB."""

    time: int
    memory: int


CHOSEN: Final = Cost(2, 19 * 1024)
"""For passwords that people choose, which can be guessed: what OWASP recommends at least."""

MADE: Final = Cost(1, 256)
"""For passwords that ``make_password`` made. Of 144 random bits none can be guessed, whatever a hash costs; so it costs
what lets a fleet come back quickly."""


class HashError(ValueError):
    """A text is no hash that can be used; one sentence."""


def make_password() -> str:
    """A new random password of 24 characters."""
    return secrets.token_urlsafe(_MADE)


def make_hash(password: bytes, cost: Cost = CHOSEN) -> str:
    """The argon2id hash of a password, with a random salt."""
    # Here and below, not above: it takes 40 ms, and most commands and nodes hash no password.
    from argon2.low_level import Type, hash_secret

    salt = secrets.token_bytes(_SALT)
    return hash_secret(password, salt, cost.time, cost.memory, 1, _HASH, Type.ID).decode("ascii")


def check_hash(text: str) -> None:
    """Raises ``HashError`` if ``verify`` could not use this text."""
    if found := _ARGON2.fullmatch(text):
        memory, time, lanes = (int(number) for number in found.groups())
        if not (8 * lanes <= memory <= _MOST_MEMORY and 1 <= time <= _MOST_TIME and 1 <= lanes <= _MOST_LANES):
            raise HashError(f"its parameters m={memory},t={time},p={lanes} are not possible, or too large")
    elif bcrypted := _BCRYPTED.fullmatch(text):
        if not 4 <= int(bcrypted[1]) <= _MOST_COST:
            raise HashError(f"its cost {int(bcrypted[1])} is not from 4 to {_MOST_COST}")
    elif text.startswith("$6$"):
        _sha512(text)
    else:
        _pbkdf2(text)


def verify(text: str, password: bytes) -> bool:
    """Whether a password is the one of a hash that ``check_hash`` accepts."""
    if text.startswith("$argon2id$"):
        from argon2.exceptions import VerificationError
        from argon2.low_level import Type, verify_secret

        try:
            return verify_secret(text.encode(), password, Type.ID)
        except VerificationError:
            return False
    if text.startswith("$2"):
        import bcrypt

        return bcrypt.checkpw(password[:_BCRYPT], text.encode())
    if text.startswith("$6$"):
        salt, hash = _sha512(text)
        return compare_digest(sha512(password + salt).digest(), hash)
    mac, iterations, salt, hash = _pbkdf2(text)
    return compare_digest(pbkdf2_hmac(mac, password, salt, iterations, len(hash)), hash)


def from_emqx(password_hash: str, salt: str, mac: str, iterations: int) -> str:
    """The text for a row of EMQX's users: ``password_hash`` is bcrypt's own text, or PBKDF2's hash in hexadecimal
    digits, whose salt counts as the text that it is. Raises ``HashError``."""
    if password_hash.startswith("$2"):
        text = password_hash
    else:
        try:
            hash = bytes.fromhex(password_hash)
        except ValueError:
            raise HashError("the hash is neither one of bcrypt nor hexadecimal digits") from None
        text = f"$pbkdf2-{mac}$i={iterations}${_to_base64(salt.encode())}${_to_base64(hash)}"
    check_hash(text)
    return text


def _sha512(text: str) -> tuple[bytes, bytes]:
    """Salt and hash."""
    parts = text.split("$")
    if len(parts) != 4:
        raise HashError("a hash that begins with $6$ is $6$salt$hash")
    salt, hash = _from_base64(parts[2]), _from_base64(parts[3])
    if len(hash) != sha512().digest_size:
        raise HashError(f"its hash has {len(hash)} bytes, and SHA-512 has {sha512().digest_size}")
    return salt, hash


def _pbkdf2(text: str) -> tuple[str, int, bytes, bytes]:
    """The name of the hash function, iterations, salt and hash."""
    parts = text.split("$")
    kind = parts[1] if len(parts) == 5 and not parts[0] else ""
    mac = "sha512" if kind == "7" else kind.removeprefix("pbkdf2-")
    digits = parts[2] if kind == "7" else parts[2].removeprefix("i=") if len(parts) == 5 else ""
    if mac not in _MACS or not (digits.isascii() and digits.isdecimal()):
        right = "argon2id ($argon2id$), PBKDF2 ($7$, $pbkdf2-), bcrypt ($2b$) or SHA-512 ($6$)"
        raise HashError(f"it is no hash of {right}")
    iterations = int(digits[:12])
    if not 1 <= iterations <= _MOST_ITERATIONS:
        raise HashError(f"its {iterations} iterations are not from 1 to {_MOST_ITERATIONS}")
    salt, hash = _from_base64(parts[3]), _from_base64(parts[4])
    if not 16 <= len(hash) <= 64:
        raise HashError(f"its hash has {len(hash)} bytes, and 16 to 64 are possible")
    return mac, iterations, salt, hash


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise HashError("its salt or hash is not valid base64") from None
