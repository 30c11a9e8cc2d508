"""The client's side of SCRAM-SHA-256, written from RFC 5802 only."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets


class ScramClient:
    """One authentication exchange."""

    def __init__(self, name: str, password: str) -> None:
        self._bare = f"n={name.replace('=', '=3D').replace(',', '=2C')},r={secrets.token_hex(12)}"
        self._password = password.encode()
        self._signature = b""

    def first(self) -> bytes:
        """client-first-message."""
        return f"n,,{self._bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        """client-final-message, for the server-first-message ``challenge``."""
        nonce, salt, rounds = (part[2:] for part in challenge.decode().split(","))
        assert nonce.startswith(self._bare.split("r=")[-1])
        salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(salt), int(rounds))
        without = f"c=biws,r={nonce}"
        message = f"{self._bare},{challenge.decode()},{without}".encode()
        key = _hmac(salted, b"Client Key")
        mask = _hmac(hashlib.sha256(key).digest(), message)
        self._signature = _hmac(_hmac(salted, b"Server Key"), message)
        proof = bytes(left ^ right for left, right in zip(key, mask, strict=True))
        return f"{without},p={base64.b64encode(proof).decode()}".encode()

    def check(self, final: bytes) -> None:
        """Check the server's signature: it proves that the server knows the verifier."""
        assert final == b"v=" + base64.b64encode(self._signature)


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()
