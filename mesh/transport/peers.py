"""Reads from a transport what it knows about the other end.

It knows the names under which asyncio keeps these facts: never what they are used for. What always holds: a fact that
the transport does not have is empty, and nothing here raises.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final

from mesh.broker.peer import Peer, TlsFacts

_NAMED: Final = ("DNS", "email", "URI")  # kinds of alternative names that identify a client


def peer_of(transport: asyncio.Transport, listener: str) -> Peer:
    """The peer of a connection that ``listener`` accepted; ``listener`` is empty for one that this node dialled."""
    name = transport.get_extra_info("peername")
    session = transport.get_extra_info("ssl_object")
    tls = None if session is None else _tls(session)
    if isinstance(name, tuple):
        return Peer(str(name[0]), int(name[1]), listener, tls)
    # A Unix socket has a path for the side that connects, and no name for the side that accepts.
    return Peer(name if isinstance(name, str) else "", 0, listener, tls)


def _tls(session: ssl.SSLObject) -> TlsFacts:
    cipher = session.cipher()
    return TlsFacts(session.version() or "", "" if cipher is None else cipher[0], _names(session.getpeercert()))


def _names(certificate: Any) -> tuple[str, ...]:
    """Names of a verified certificate in the form of ``ssl.SSLSocket.getpeercert``; that is empty or ``None`` without
    one."""
    if not certificate:
        return ()
    common = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    others = [value for kind, value in certificate.get("subjectAltName", ()) if kind in _NAMED]
    return tuple(dict.fromkeys([*common, *others]))
