"""Tokens: JSON Web Tokens (RFC 7519, RFC 8725) in their compact form, and what a valid one says.

It knows keys, the rules of the topology, and the time that it is told. It must never fetch a key, nor look at a header
that names one otherwise than by its identifier. What always holds:

* the size of a token is bounded before any part of it is decoded;
* no claim of a token is believed before its signature is checked, with a key that fits its algorithm, which the
  topology names; there is no token without a signature;
* a token without an end is refused; header and claims are read strictly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Final, final

from mesh.policy.keyset import ALGORITHMS, Key, check_algorithms, from_base64
from mesh.policy.rolenames import roles_of
from mesh.policy.strictjson import read_object

MAX_TOKEN: Final = 16 * 1024  # bytes
MAX_LEEWAY: Final = 300.0  # seconds
_MAX_JTI: Final = 128  # characters of a token's identifier that are kept

# Three parts in base64url, of which the first begins with a brace.
_FORM: Final = re.compile(rb"e[w-z0-9_-][A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")


class TokenError(ValueError):
    """The token is not valid; the text is for the log."""


@final
class ForgedToken(TokenError):
    """Its signature is not that of the key that it names: no issuer made it."""


@final
@dataclass(frozen=True, slots=True)
class TokenRule:
    """Which tokens are valid, and what they say.

    ``issuers``, ``audiences``: a token must name one of each; without ``audiences`` it is not checked. ``leeway``: by
    how many seconds clocks may differ. ``vehicle`` and ``roles``: the claims with the identity and the roles: a name,
    or several with dots between for a claim within another one; without ``roles`` a token gives none.
    """

    issuers: tuple[str, ...]
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    leeway: float = 30.0
    vehicle: str = "sub"
    roles: str = ""

    def __post_init__(self) -> None:
        check_algorithms(self.algorithms)
        if not self.issuers:
            raise ValueError("name the issuer whose tokens are valid")
        if not 0 <= self.leeway <= MAX_LEEWAY:
            raise ValueError(f"the leeway is from 0 to {MAX_LEEWAY:g} s")


@final
@dataclass(frozen=True, slots=True)
class Said:
    """What a valid token says. ``expires`` is in seconds since 1970, the leeway included; ``id`` is its ``jti``."""

    vehicle: str
    roles: tuple[str, ...]
    expires: float
    id: str


def is_token(data: bytes) -> bool:
    """Whether a password has the form of a token; one with this form is meant as a token, valid or not."""
    return _FORM.fullmatch(data) is not None


@final
class Token:
    """A token that is read, and not checked. ``is_of_issuer`` says whether it names an issuer of the rule; only then
    ``algorithm`` is one of the rule's. ``key`` is the identifier of its key, empty if it names none."""

    __slots__ = ("_claims", "_rule", "_signature", "_signed", "algorithm", "is_of_issuer", "key")

    def __init__(self, data: bytes, rule: TokenRule) -> None:
        """Raises ``TokenError``."""
        if len(data) > MAX_TOKEN:
            raise TokenError(f"the token has {len(data)} bytes, and the limit is {MAX_TOKEN}")
        if not is_token(data):
            raise TokenError("it is not a token of three parts (RFC 7515 section 3.1)")
        first, second, third = data.split(b".")
        header = _object(first, "the header of the token")
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise TokenError(_wrong_algorithm(algorithm, rule))
        if "crit" in header:  # RFC 7515 section 4.1.11: none of these extensions is known here
            raise TokenError(f"the token needs extensions: {header['crit']!r:.80}")
        key = header.get("kid", "")
        if not isinstance(key, str):
            raise TokenError("the identifier of its key is no text")
        self.algorithm = algorithm
        self.key = key
        self._rule = rule
        self._signed = data[: len(first) + 1 + len(second)]
        self._signature = _bytes(third, "the signature of the token")
        self._claims = _object(second, "the claims of the token")
        self.is_of_issuer = self._claims.get("iss") in rule.issuers
        # A token of another issuer is for another provider, which may allow other algorithms.
        if self.is_of_issuer and algorithm not in rule.algorithms:
            raise TokenError(_wrong_algorithm(algorithm, rule))

    def claimed(self) -> str:
        """The vehicle that it names, which is not to be believed; empty if it names none."""
        found = claim_at(self._claims, self._rule.vehicle)
        return found if isinstance(found, str) else ""

    def says(self, key: Key, now: float) -> Said:
        """What the token says, if it is signed with ``key`` and valid at ``now``, in seconds since 1970. Raises
        ``TokenError``."""
        if not key.has_signed(self.algorithm, self._signed, self._signature):
            raise ForgedToken(f"the signature of the token is not that of the key {key.id or key.thumbprint!r:.80}")
        claims, rule = self._claims, self._rule
        if not self.is_of_issuer:
            raise TokenError(f"the token is of the issuer {claims.get('iss')!r:.80}, not of {', '.join(rule.issuers)}")
        _check_audience(claims, rule)
        expires = _check_times(claims, rule.leeway, now)
        vehicle = claim_at(claims, rule.vehicle)
        if not isinstance(vehicle, str) or not vehicle:
            raise TokenError(f"the claim {rule.vehicle!r}, which names the vehicle, is missing or no text")
        id = claims.get("jti", "")
        return Said(vehicle, _roles(claims, rule.roles), expires, id[:_MAX_JTI] if isinstance(id, str) else "")


def _wrong_algorithm(algorithm: object, rule: TokenRule) -> str:
    return f"the token has the algorithm {algorithm!r:.40}; allowed: {', '.join(rule.algorithms)}"


def claim_at(claims: Mapping[str, object], path: str) -> object:
    """The claim with the name ``path``, else the one at the end of the names between its dots; ``None`` if it is not
    there. A name may itself have dots, as that of a URL."""
    if path in claims:
        return claims[path]
    found: object = claims
    for name in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def _roles(claims: Mapping[str, object], path: str) -> tuple[str, ...]:
    found = claim_at(claims, path) if path else None
    try:
        return () if found is None else roles_of(found)
    except ValueError as error:
        raise TokenError(f"the claim {path!r}: {error}") from None


def _check_audience(claims: Mapping[str, object], rule: TokenRule) -> None:
    found = claims.get("aud")
    named = found if isinstance(found, list) else [found]
    if rule.audiences and not any(isinstance(one, str) and one in rule.audiences for one in named):
        raise TokenError(f"the token is for {found!r:.80}, not for {' or '.join(rule.audiences)}")


def _check_times(claims: Mapping[str, object], leeway: float, now: float) -> float:
    """Returns when the token ends, the leeway included."""
    expires = _time(claims, "exp")
    if expires is None:
        raise TokenError("the token has no end (exp)")
    if now >= expires + leeway:
        raise TokenError(f"the token ended {now - expires:.0f} s ago")
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and now < begins - leeway:
            raise TokenError(f"the token begins in {begins - now:.0f} s ({name})")
    return expires + leeway


def _time(claims: Mapping[str, object], name: str) -> float | None:
    found = claims.get(name)
    if found is None and name not in claims:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise TokenError(f"its claim {name!r} is no number of seconds since 1970")
    try:
        seconds = float(found)
    except OverflowError:
        seconds = float("inf")
    if not isfinite(seconds):
        raise TokenError(f"its claim {name!r} is out of range")
    return seconds


def _bytes(text: bytes, what: str) -> bytes:
    try:
        return from_base64(text)
    except ValueError:
        raise TokenError(f"{what} is not base64url") from None


def _object(text: bytes, what: str) -> dict[str, object]:
    try:
        return read_object(_bytes(text, what), what)
    except TokenError:
        raise
    except ValueError as error:
        raise TokenError(str(error)) from None
