"""Where and how a node listens, as one value.

It knows the kind of listener, its address, the files of its certificates and what it asks of a connection: never
contexts, sockets, or which clients may connect. What always holds: a value never changes; only the ``Listener`` knows a
free port that the system chose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final, final

from mesh.wire.pattern import Alphabet, TextPattern

NONE: Final = "none"
OPTIONAL: Final = "optional"
REQUIRED: Final = "required"
ANY_ORIGIN: Final = "*"

_VALUE: Final = Alphabet(
    "the value of a header with a pattern", frozenset(map(chr, range(0x20, 0x7F))), "printable ASCII characters", 512
)


@final
@dataclass(frozen=True, slots=True)
class KeyPair:
    """Two files in PEM format: a certificate with its chain, and its key."""

    cert: Path
    key: Path

    def __str__(self) -> str:
        return str(self.cert)


@final
@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files and settings of a listener with TLS. ``pairs``: the first certificate is for clients that name no
    server, or one that no certificate has. ``client``: whether a client has to show a certificate: ``none``,
    ``optional`` or ``required``; ``ca``: those that sign them, ``crl``: their lists of revoked certificates, in PEM
    format. ``min``: the lowest version of TLS, ``1.2`` or ``1.3``; ``ciphers``: for TLS 1.2, in OpenSSL's form, empty:
    the default. ``resumption``: whether clients may resume sessions; OpenSSL lets them with TLS 1.2 in any
    case."""

    pairs: tuple[KeyPair, ...]
    client: str = NONE
    ca: Path | None = None
    crl: Path | None = None
    min: str = "1.2"
    ciphers: str = ""
    resumption: bool = True

    def in_force(self) -> dict[str, object]:
        """The settings, by name."""
        return {
            "files": [str(file) for file in self.files()], "client": self.client, "min": self.min,
            "ciphers": self.ciphers, "resumption": self.resumption,
        }  # fmt: skip

    def files(self) -> tuple[Path, ...]:
        """All files, in a fixed order."""
        others = (file for file in (self.ca, self.crl) if file is not None)
        return (*(file for pair in self.pairs for file in (pair.cert, pair.key)), *others)


@final
@dataclass(frozen=True, slots=True)
class HeaderRule:
    """A header that an upgrade to WebSocket must have. ``name`` is in small letters; ``value`` is the exact value, or a
    ``pattern`` for the whole of it."""

    name: str
    value: str = field(repr=False)  # it may be a secret
    pattern: bool = False


def header_pattern(text: str) -> TextPattern:
    """The pattern of a header's value. Raises ``PatternError``."""
    return TextPattern(text, _VALUE)


@final
@dataclass(frozen=True, slots=True)
class Listen:
    """``kind`` is ``mqtt``, ``mqtts``, ``ws`` or ``wss`` for clients; ``device`` and ``tier`` are an edge's ports for
    front doors and cores. ``port`` 0 takes a free port. ``path``, ``origins`` and ``headers`` are those of a WebSocket
    listener, else empty; the origin ``*`` is any. ``tls``: ``None`` for a listener without TLS. ``proxy``: networks
    from which a connection must begin with the PROXY protocol; from others it must not. ``identify``: the names of the
    providers that identify its clients; empty: all."""

    kind: str
    host: str
    port: int
    path: str = ""
    tls: TlsFiles | None = None
    proxy: tuple[IPv4Network | IPv6Network, ...] = ()
    origins: tuple[str, ...] = ()
    headers: tuple[HeaderRule, ...] = ()
    identify: tuple[str, ...] = ()

    def in_force(self) -> dict[str, object]:
        """Its name and settings; of headers the names, as values may be secrets."""
        found: dict[str, object] = {"address": str(self)}
        if self.tls is not None:
            found["tls"] = self.tls.in_force()
        if self.proxy:
            found["proxy"] = [str(network) for network in self.proxy]
        if self.origins:
            found["origins"] = list(self.origins)
        if self.headers:
            found["headers"] = [rule.name for rule in self.headers]
        return found

    @property
    def place(self) -> tuple[str, str, int, str]:
        """What the listener is known by: two that differ only in the rest are one listener with other settings."""
        return self.kind, self.host, self.port, self.path

    @property
    def staged(self) -> bool:
        """Whether a connection goes through more than its socket before its first MQTT packet (see ``accept``)."""
        return self.tls is not None or bool(self.proxy) or self.kind in ("ws", "wss")

    def __str__(self) -> str:
        """The listener's name in logs and figures: ``mqtt://127.0.0.1:1883``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}://{host}:{self.port}{self.path}"
