"""Who may name another client at the beginning of a connection, by the PROXY protocol, and whom it has named.

It knows addresses and headers: never connections. What always holds: what the header does not say of the client is
empty, and not the load balancer's.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address

from mesh.broker.peer import Peer, TlsFacts
from mesh.wire.proxy import ProxyHeader

Networks = tuple[IPv4Network | IPv6Network, ...]


def trusted(networks: Networks, peer: Peer) -> bool:
    """Whether the other end of a connection may name another client."""
    try:
        address = ip_address(peer.address)
    except ValueError:
        return False  # a Unix socket
    return any(address in network for network in networks)


def client_of(header: ProxyHeader, known: Peer) -> Peer:
    """The client, if the header names it, else the load balancer itself. ``known``: its connection."""
    said = header.tls
    tls = None if said is None else TlsFacts(said.version, said.cipher, common_name=said.common_name)
    if not header.address:
        return Peer(known.address, known.port, known.listener, tls)
    return Peer(header.address, header.port, known.listener, tls)
