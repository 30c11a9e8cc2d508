"""Reads from a transport what it knows about the other end.

It knows the names under which asyncio keeps these facts: never what they are used for. What always holds: a fact that
the transport does not have is empty, and nothing here raises.
"""

from __future__ import annotations

import asyncio

from mesh.broker.peer import Peer, TlsFacts


def peer_of(transport: asyncio.Transport, known: Peer) -> Peer:
    """The peer of a connection. ``known``: what is known already, such as the listener that accepted it, or the address
    that a proxy named; only the rest is read."""
    tls = known.tls
    if tls is not None and known.address:
        return known
    session = transport.get_extra_info("ssl_object")
    if tls is None and session is not None:
        cipher = session.cipher()
        tls = TlsFacts(session.version() or "", "" if cipher is None else cipher[0])
    if known.address:
        return Peer(known.address, known.port, known.listener, tls, known.headers)
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        return Peer(str(name[0]), int(name[1]), known.listener, tls, known.headers)
    # A Unix socket has a path for the side that connects, and no name for the side that accepts.
    return Peer(name if isinstance(name, str) else "", 0, known.listener, tls, known.headers)
