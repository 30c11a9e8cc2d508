"""Takes the PROXY protocol's header from an accepted socket, before TLS or MQTT.

It knows sockets and who may send a header: never what follows. What always holds: exactly the bytes of the header are
read, so the socket goes on as if the client had connected to it; a load balancer that is not trusted is not read.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network, IPv6Network, ip_address

from mesh.broker.peer import Peer, TlsFacts
from mesh.wire.proxy import LONGEST, ProxyError, ProxyHeader, ProxyReader

Networks = tuple[IPv4Network | IPv6Network, ...]


def trusted(networks: Networks, peer: Peer) -> bool:
    """Whether the other end of a connection may name another client."""
    try:
        address = ip_address(peer.address)
    except ValueError:
        return False  # a Unix socket
    return any(address in network for network in networks)


async def read_header(sock: socket.socket, readable: Callable[[], Awaitable[None]]) -> ProxyHeader:
    """``readable`` waits until ``sock``, which does not block, has something to read. Raises ``ProxyError`` if no
    header comes, and ``OSError``."""
    reader = ProxyReader()
    while True:
        await readable()
        try:
            ahead = sock.recv(LONGEST, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            continue
        if not ahead:
            raise ProxyError("it closed the connection within its header of the PROXY protocol")
        left = reader.feed(ahead)
        while left:  # what was seen is there
            left -= len(sock.recv(left))
        if reader.header is not None:
            return reader.header


def client_of(header: ProxyHeader, known: Peer) -> Peer:
    """The client, if the header names it, else the load balancer itself. ``known``: its connection."""
    said = header.tls
    tls = None if said is None else TlsFacts(said.version, said.cipher, common_name=said.common_name)
    if not header.address:
        return Peer(known.address, known.port, known.listener, tls)
    return Peer(header.address, header.port, known.listener, tls)
