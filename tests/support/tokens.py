"""An issuer of tokens: keys, sets of them, and tokens, valid and not."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

ISSUER = "https://issuer.example"
AUDIENCE = "mesh"
SECRET = b"0123456789abcdef" * 4

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | bytes


def key(algorithm: str, number: int = 0) -> Private:
    """A private key for an algorithm; each ``number`` has another one."""
    return _key(algorithm, number)


@cache
def _key(algorithm: str, number: int) -> Private:
    if algorithm[:2] in ("RS", "PS"):
        return rsa.generate_private_key(65537, 2048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm[:2] == "HS":
        return SECRET + bytes(number)
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    return ec.generate_private_key(curves[algorithm])


def public(algorithm: str, id: str = "", number: int = 0, **more: object) -> dict[str, object]:
    """The JSON Web Key of ``key``; ``more`` are further members."""
    private = key(algorithm, number)
    half = private if isinstance(private, bytes) else private.public_key()
    found: dict[str, object] = get_default_algorithms()[algorithm].to_jwk(half, as_dict=True)
    found = {name: value for name, value in found.items() if name != "key_ops"}
    return {**found, **({"kid": id} if id else {}), **more}


def key_set(*keys: Mapping[str, object]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(vehicle: str = "V1", **more: object) -> dict[str, object]:
    now = int(time.time())
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": vehicle, "iat": now, "exp": now + 600, **more}
    return {name: value for name, value in found.items() if value is not None}


def token(
    said: Mapping[str, object], algorithm: str = "ES256", id: str = "", number: int = 0, **header: object
) -> bytes:
    """A token with these claims, signed with ``key``."""
    headers = {**({"kid": id} if id else {}), **header}
    return jwt.encode(dict(said), key(algorithm, number), algorithm=algorithm, headers=headers).encode()


def raw_token(header: bytes, said: bytes, algorithm: str = "ES256", number: int = 0) -> bytes:
    """A token of any header and any claims, signed with ``key``."""
    signed = _to_base64(header) + b"." + _to_base64(said)
    return signed + b"." + _to_base64(get_default_algorithms()[algorithm].sign(signed, key(algorithm, number)))


def _to_base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class Keys:
    """A file of keys, and the sections of a topology whose door and core use it."""

    def __init__(self, folder: Path, source: str = "") -> None:
        self.path = folder / "keys.json"
        self.give(public("ES256", "a"))
        jwt = (
            f"{{keys: {source or self.path}, issuer: {ISSUER!r}, audience: {AUDIENCE}, algorithms: [ES256], "
            "leeway: 0s, roles: roles}"
        )
        self.identity = f'{{from: username, pattern: "[A-Z0-9-]{{1,32}}", providers: [{{name: tokens, jwt: {jwt}}}]}}'
        self.backends = f"{{providers: [{{name: tokens, jwt: {jwt}}}]}}"

    def give(self, *keys: dict[str, object]) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(key_set(*keys))
        fresh.replace(self.path)
