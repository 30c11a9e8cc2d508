"""The way between two nodes on one machine: a Unix socket beside the TCP port.

It knows paths and how to connect: never what is said. What always holds: TCP is there as well, and is used when the
Unix socket is not, whatever the reason; the name of the socket has the port in it, so that it cannot lead to another
process than the one that has announced itself with that port.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

_LONGEST: Final = 107  # bytes of a path, unix(7)

log = logging.getLogger(__name__)

Near = Callable[[int], str]
"""The path of the Unix socket beside a port; empty: there is none."""


def nowhere(_port: int) -> str:
    """TCP only."""
    return ""


def near_path(folder: Path, purpose: str, port: int) -> str:
    """The path for a node with this folder; empty if it would be too long for the system."""
    path = str(folder / f"{purpose}-{port}.sock")
    return path if len(os.fsencode(path)) <= _LONGEST else ""


async def connect(
    loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.BaseProtocol], near: str, host: str, port: int
) -> None:
    """Connect over the Unix socket ``near``, or over TCP. Raises ``OSError``."""
    if near:
        try:
            await loop.create_unix_connection(factory, near)
        except OSError as error:  # it is on another machine, or was killed
            log.debug("%s: %s; going by TCP", near, error)
        else:
            return
    await loop.create_connection(factory, host, port)
