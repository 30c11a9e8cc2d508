"""The other end of a connection, as far as a listener can know it.

It knows addresses, the listener, and what TLS and HTTP say about the client. It must never hold what the client says
about itself in MQTT packets. What always holds: a value never changes, so it can be shared.
"""

from __future__ import annotations

from typing import Final, final


@final
class TlsFacts:
    """What a TLS handshake established. ``version`` and ``cipher`` are OpenSSL's names (``TLSv1.3``); ``resumed``: the
    handshake resumed a session.

    The others are those of the client's certificate, which is verified; without one they are empty, ``fingerprint``
    too. ``common_name`` is the only common name of its subject: empty if it has several, or one with a control
    character. ``dns``, ``email`` and ``uri`` are its alternative names without control characters. ``serial`` is its
    serial number in hexadecimal digits, ``fingerprint`` its SHA-256, both in small letters without separators;
    ``issuer`` the name of its issuer in the form of RFC 4514; ``authority`` the SHA-256 of the key that signed it, as
    far as that is known here; ``not_after`` the end of its validity in seconds since 1970."""

    __slots__ = (
        "authority",
        "cipher",
        "common_name",
        "dns",
        "email",
        "fingerprint",
        "issuer",
        "not_after",
        "resumed",
        "serial",
        "uri",
        "version",
    )

    def __init__(
        self,
        version: str,
        cipher: str,
        resumed: bool = False,
        *,
        common_name: str = "",
        dns: tuple[str, ...] = (),
        email: tuple[str, ...] = (),
        uri: tuple[str, ...] = (),
        serial: str = "",
        fingerprint: str = "",
        issuer: str = "",
        authority: str = "",
        not_after: float = 0.0,
    ) -> None:
        self.version = version
        self.cipher = cipher
        self.resumed = resumed
        self.common_name = common_name
        self.dns = dns
        self.email = email
        self.uri = uri
        self.serial = serial
        self.fingerprint = fingerprint
        self.issuer = issuer
        self.authority = authority
        self.not_after = not_after


@final
class Peer:
    """``address`` is an IP address without brackets, with its ``port``, or the path of the Unix socket that this node
    dialled; empty for a connection that came over a Unix socket, and before the connection is made.
    ``listener`` names the listener that accepted the connection (``mqtt://127.0.0.1:1883``); empty for a connection
    that this node dialled. ``tls`` is ``None`` for a plain connection. ``headers`` are those of the HTTP request that
    became a WebSocket, with lower-case names."""

    __slots__ = ("address", "headers", "listener", "port", "tls")

    def __init__(
        self,
        address: str = "",
        port: int = 0,
        listener: str = "",
        tls: TlsFacts | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.address = address
        self.port = port
        self.listener = listener
        self.tls = tls
        self.headers = headers

    def __str__(self) -> str:
        """The address for people: ``192.0.2.7:50123``, ``[2001:db8::7]:50123`` or ``this machine``."""
        if not self.port:
            return self.address or "this machine"
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


NOWHERE: Final = Peer()
