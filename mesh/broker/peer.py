"""The other end of a connection, as far as a listener can know it.

It knows addresses, the listener, and what TLS and HTTP say about the client. It must never hold what the client says
about itself in MQTT packets. What always holds: a value never changes, so it can be shared.
"""

from __future__ import annotations

from typing import Final, final


@final
class TlsFacts:
    """What a TLS handshake established. ``version`` and ``cipher`` are OpenSSL's names (``TLSv1.3``); ``names`` are the
    verified client certificate's common name, if it has one, and its DNS names, e-mail addresses and URIs. Without a
    verified certificate ``names`` is empty."""

    __slots__ = ("cipher", "names", "version")

    def __init__(self, version: str, cipher: str, names: tuple[str, ...] = ()) -> None:
        self.version = version
        self.cipher = cipher
        self.names = names


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
