"""The host that this node announces to the others.

It knows addresses of this machine: never which nodes connect. What always holds: the announced host is an address that
other nodes can connect to, so never a wildcard.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final
from urllib.parse import urlsplit

from mesh.topology.units import is_wildcard

LOOPBACK: Final = "127.0.0.1"
_WAIT: Final = 3.0  # seconds for the name of an etcd endpoint
_ETCD: Final = 2379  # any port would do, as nothing is sent


async def own_host(bind: str, endpoints: tuple[str, ...]) -> str:
    """``bind``; for a wildcard the address, of its family, that this machine uses towards the first etcd endpoint.

    Loopback if there is no route: then no other machine can reach this one anyway.
    """
    if not is_wildcard(bind):
        return bind
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    return await _source_address(endpoints[0], family) or ("::1" if family == socket.AF_INET6 else LOOPBACK)


async def _source_address(url: str, family: socket.AddressFamily) -> str:
    """The source address of packets to ``url``; empty if there is no route. Sends nothing but the DNS query."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_WAIT):
            found = await asyncio.get_running_loop().getaddrinfo(
                parts.hostname, parts.port or _ETCD, family=family, type=socket.SOCK_DGRAM
            )
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(found[0][4])  # UDP: the kernel only chooses the route and the source address
            return str(probe.getsockname()[0])
    except (OSError, TimeoutError):
        return ""
