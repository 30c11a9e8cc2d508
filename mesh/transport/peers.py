"""Reads from a transport what it knows about the other end.

It knows the names under which asyncio keeps these facts: never what they are used for. What always holds: a fact that
the transport does not have is empty, and nothing here raises.
"""

from __future__ import annotations

import asyncio

from mesh.broker.peer import Peer
from mesh.transport.certificates import facts_of


def peer_of(transport: asyncio.Transport, listener: str) -> Peer:
    """The peer of a connection that ``listener`` accepted; ``listener`` is empty for one that this node dialled."""
    name = transport.get_extra_info("peername")
    session = transport.get_extra_info("ssl_object")
    tls = None if session is None else facts_of(session)
    if isinstance(name, tuple):
        return Peer(str(name[0]), int(name[1]), listener, tls)
    # A Unix socket has a path for the side that connects, and no name for the side that accepts.
    return Peer(name if isinstance(name, str) else "", 0, listener, tls)
