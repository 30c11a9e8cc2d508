"""The host under which the others find this node.

It knows addresses of this machine: never who connects. What always holds: what is announced is an address that somebody
can connect to, so never a wildcard.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final
from urllib.parse import urlsplit

from mesh.topology.units import is_wildcard

_WAIT: Final = 3.0  # seconds for the name of an etcd endpoint
_ETCD: Final = 2379  # any port would do, as nothing is sent


async def own_host(bind: str, endpoints: tuple[str, ...]) -> str:
    """``bind``; for a wildcard the address, of its family, that this machine uses towards the first etcd endpoint.

    Loopback if there is none: then nobody else is there to be found by.
    """
    if not is_wildcard(bind):
        return bind
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    return await _towards(endpoints[0], family) or ("::1" if family == socket.AF_INET6 else "127.0.0.1")


async def _towards(url: str, family: socket.AddressFamily) -> str:
    """The source address of what would go to ``url``; empty if there is no way. Sends nothing but the name's query."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_WAIT):
            found = await asyncio.get_running_loop().getaddrinfo(
                parts.hostname, parts.port or _ETCD, family=family, type=socket.SOCK_DGRAM
            )
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(found[0][4])  # UDP: the kernel chooses the route and the source address, and that is all
            return str(probe.getsockname()[0])
    except (OSError, TimeoutError):
        return ""
