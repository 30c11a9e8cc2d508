"""Measures what an idle TLS connection takes, both ends together, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Final

from mesh.transport.listen import NONE
from tests.support.hall import Hall
from tests.support.loop import run
from tests.support.tlsclient import Client
from tests.support.town import Town

MANY: Final = 400


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(folder: Path) -> None:
    """Print the bytes of each of the later connections; the first ones fill caches."""
    town = Town(folder)

    async def main() -> None:
        async with Hall(limit=2 * MANY, tls=town.files(NONE)) as hall:
            context = town.client()
            clients: list[Client] = []

            def connect() -> None:
                clients.append(Client(hall.listener.port, context))
                assert clients[-1].echo() == b"hello"

            for _ in range(MANY // 4):
                await asyncio.to_thread(connect)
            before = resident()
            for _ in range(MANY):
                await asyncio.to_thread(connect)
            print((resident() - before) / MANY, flush=True)

    run(main())


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
