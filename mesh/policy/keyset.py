"""Keys that tokens are signed with: JSON Web Keys (RFC 7517) and the algorithms that they fit (RFC 7518, RFC 8037).

It knows keys and algorithms: never tokens, nor where a set comes from. What always holds:

* an algorithm uses a key of its own type, curve and length only: a public key is never the secret of a symmetric one;
* no key is used for an algorithm that the topology does not name, nor for another one than the key itself names;
* a set with a private key is refused: who can read the set could sign with it;
* the bytes and the keys of a set are bounded.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Final, NamedTuple, final

from jwt import PyJWTError
from jwt.algorithms import Algorithm, get_default_algorithms

from mesh.policy.strictjson import read_object

MAX_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 64
MAX_ID: Final = 256  # characters of a key's identifier
RSA_BITS: Final = (2048, 8192)
_MAX_EXPONENT: Final = 32  # bits; 65537 is the usual one, and a long one makes each check slow


class Fit(NamedTuple):
    """What a key must be for an algorithm. ``bytes``: the least length of a secret (RFC 7518 section 3.2)."""

    type: str
    curve: str = ""
    bytes: int = 0


ALGORITHMS: Final[Mapping[str, Fit]] = {
    "RS256": Fit("RSA"), "RS384": Fit("RSA"), "RS512": Fit("RSA"),
    "PS256": Fit("RSA"), "PS384": Fit("RSA"), "PS512": Fit("RSA"),
    "ES256": Fit("EC", "P-256"), "ES384": Fit("EC", "P-384"), "ES512": Fit("EC", "P-521"),
    "EdDSA": Fit("OKP", "Ed25519"),
    "HS256": Fit("oct", bytes=32), "HS384": Fit("oct", bytes=48), "HS512": Fit("oct", bytes=64),
}  # fmt: skip
SECRET: Final = frozenset(name for name, fit in ALGORITHMS.items() if fit.type == "oct")

_IMPLEMENTED: Final[Mapping[str, Algorithm]] = get_default_algorithms()
# The members of a key that name it (RFC 7638 section 3.2), by its type.
_NAMING: Final = {
    "RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "oct": ("k", "kty")
}  # fmt: skip


class UnknownKey(Exception):
    """The set has no key with this identifier; a newer one may."""


def check_algorithms(names: Collection[str]) -> None:
    """Raises ``ValueError`` unless all names are those of algorithms that may be allowed together."""
    if not names:
        raise ValueError(f"name at least one algorithm; known are {', '.join(ALGORITHMS)}")
    for name in names:
        if name not in ALGORITHMS:
            raise ValueError(f"the algorithm {name!r:.40} is not known; known are {', '.join(ALGORITHMS)}")
    secret = SECRET.intersection(names)
    if secret and len(secret) != len(set(names)):
        raise ValueError(
            f"{', '.join(sorted(secret))} and algorithms with public keys cannot be allowed together: a public key "
            "could be taken for the secret; make two providers"
        )


def from_base64(text: str | bytes) -> bytes:
    """The bytes of a text in base64url without padding (RFC 7515 section 2), in its only right form. Raises
    ``ValueError``."""
    raw = text.encode() if isinstance(text, str) else text
    try:
        found = urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
    except ValueError:
        found = b""
    if to_base64(found).encode() != raw:
        raise ValueError("it is not base64url without padding")
    return found


def to_base64(data: bytes) -> str:
    """The same, the other way."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@final
class Key:
    """One key. ``id`` is the identifier that tokens name, empty if it has none; ``thumbprint`` is that of RFC 7638."""

    __slots__ = ("_bytes", "_key", "algorithm", "curve", "id", "thumbprint", "type")

    def __init__(self, members: Mapping[str, object]) -> None:
        """Raises ``ValueError`` if it cannot be used."""
        self.type = _text(members, "kty")
        naming = _NAMING.get(self.type)
        if naming is None:
            raise ValueError(f"its type {self.type!r:.40} is not known")
        self.id = _text(members, "kid", "")
        self.algorithm = _text(members, "alg", "")
        self.curve = _text(members, "crv", "")
        named = {name: _text(members, name) for name in naming}
        self.thumbprint = to_base64(sha256(json.dumps(named, separators=(",", ":")).encode()).digest())
        self._bytes = len(from_base64(named["k"])) if self.type == "oct" else 0
        if len(self.id) > MAX_ID:
            raise ValueError(f"its identifier has {len(self.id)} characters, and the limit is {MAX_ID}")
        if self.type == "RSA":
            _check_rsa(named)
        fitting = next((name for name in ALGORITHMS if self.fits(name)), None)
        if fitting is None:
            raise ValueError("it fits no algorithm that is known")
        try:
            self._key: object = _IMPLEMENTED[fitting].from_jwk(named)
        except (PyJWTError, ValueError) as error:
            raise ValueError(f"it is no valid {self.type} key: {error}") from None

    def fits(self, algorithm: str) -> bool:
        """Whether this key may be used for an algorithm of ``ALGORITHMS``."""
        fit = ALGORITHMS[algorithm]
        if self.algorithm not in ("", algorithm) or self.type != fit.type or self._bytes < fit.bytes:
            return False
        return not fit.curve or self.curve == fit.curve

    def has_signed(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is that of ``message``. Call it for an algorithm that the key fits."""
        return self.fits(algorithm) and _IMPLEMENTED[algorithm].verify(message, self._key, signature)


@final
class KeySet:
    """The keys of a set that fit one of ``algorithms``."""

    __slots__ = ("_keys", "thumbprints")

    def __init__(self, keys: Collection[Key] = ()) -> None:
        self._keys = tuple(keys)
        self.thumbprints = frozenset(key.thumbprint for key in keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, algorithm: str, id: str) -> Key:
        """The key for a token that names an algorithm and the identifier of a key, empty if it names none. Raises
        ``UnknownKey``, and ``ValueError`` if the key with this identifier does not fit the algorithm."""
        named = [key for key in self._keys if key.id == id] if id else self._keys
        if not named:
            raise UnknownKey(f"no key has the identifier {id!r:.80}")
        fitting = [key for key in named if key.fits(algorithm)]
        if len(fitting) == 1:
            return fitting[0]
        if not id:
            raise ValueError(f"it names no key, and {len(fitting)} keys fit {algorithm}")
        raise ValueError(f"the key {id!r:.80} does not fit {algorithm}")


def read_keys(text: bytes, algorithms: Collection[str]) -> KeySet:
    """The keys of a JSON Web Key Set that fit one of ``algorithms``; others are left out (RFC 7517 section 5).

    Raises ``ValueError`` if the set cannot be used: it has no such key, too many bytes or keys, a private key, or two
    keys that one token could mean.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"the set of keys has more than {MAX_BYTES} bytes")
    listed = read_object(text, "the set of keys").get("keys")
    if not isinstance(listed, list):
        raise ValueError('the set of keys has no list "keys" (RFC 7517 section 5)')
    if len(listed) > MAX_KEYS:
        raise ValueError(f"the set has {len(listed)} keys, and the limit is {MAX_KEYS}")
    found: list[Key] = []
    faults: list[str] = []
    for number, members in enumerate(listed, 1):
        key = _usable(number, members, algorithms, faults)
        if key is None:
            continue
        if key.id and any(key.id == other.id and key.type == other.type for other in found):
            raise ValueError(f"two {key.type} keys have the identifier {key.id!r:.80}")
        found.append(key)
    if not found:
        why = f": {'; '.join(faults[:3])}" if faults else ""
        raise ValueError(f"the set has no key for {', '.join(algorithms)}{why}")
    return KeySet(found)


def _usable(number: int, members: object, algorithms: Collection[str], faults: list[str]) -> Key | None:
    """The key, if it is for signatures of one of ``algorithms``."""
    if not isinstance(members, dict):
        raise ValueError(f"key {number} of the set is not a JSON object")
    if members.get("kty") != "oct" and "d" in members:
        raise ValueError(f"key {number} of the set is a private key; publish the public part of it, and replace it")
    operations = members.get("key_ops", ["verify"])
    if members.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        key = Key(members)
    except ValueError as error:
        faults.append(f"key {number}: {error}")
        return None
    return key if any(key.fits(name) for name in algorithms) else None


def _text(members: Mapping[str, object], name: str, default: str | None = None) -> str:
    found = members.get(name, default)
    if not isinstance(found, str):
        raise ValueError(f"its member {name!r} is missing or no text")
    return found


def _check_rsa(named: Mapping[str, str]) -> None:
    bits = int.from_bytes(from_base64(named["n"])).bit_length()
    least, most = RSA_BITS
    if not least <= bits <= most:
        raise ValueError(f"it is an RSA key of {bits} bits; use {least} to {most}")
    if int.from_bytes(from_base64(named["e"])).bit_length() > _MAX_EXPONENT:
        raise ValueError(f"its public exponent has more than {_MAX_EXPONENT} bits")
