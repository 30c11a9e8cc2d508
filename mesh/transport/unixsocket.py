"""Connections between two nodes on one machine: a Unix socket beside the TCP port.

It knows paths and how to connect: never what the nodes send. What always holds: the TCP port is open as well, and is
used when the Unix socket is not usable, for any reason; only TCP has TLS, as no other user of the machine reaches the
Unix socket; the socket's name contains the port, so it cannot lead to
another process than the one that has announced that port.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

_LONGEST: Final = 107  # bytes of a path, unix(7)

log = logging.getLogger(__name__)

UnixPath = Callable[[int], str]
"""The path of the Unix socket beside a TCP port; empty if there is none."""


def no_unix_path(_port: int) -> str:
    """TCP only."""
    return ""


def socket_path(folder: Path, purpose: str, port: int) -> str:
    """The path for a node with this folder; empty if it would be too long for the system."""
    path = str(folder / f"{purpose}-{port}.sock")
    return path if len(os.fsencode(path)) <= _LONGEST else ""


Secure = Callable[[], Awaitable[ssl.SSLContext]]
"""Gives the TLS context of a new connection; raises ``OSError`` if there is none."""


async def connect(
    loop: asyncio.AbstractEventLoop,
    factory: Callable[[], asyncio.BaseProtocol],
    path: str,
    host: str,
    port: int,
    secure: Secure | None = None,
) -> None:
    """Connect over the Unix socket ``path``, or over TCP if that fails or is empty, with TLS if ``secure`` is given.
    Raises ``OSError``."""
    if path:
        try:
            await loop.create_unix_connection(factory, path)
        except OSError as error:  # the node is on another machine, or was killed
            log.debug("%s: %s; using TCP", path, error)
        else:
            return
    context = None if secure is None else await secure()
    await loop.create_connection(factory, host, port, ssl=context)
