"""What an idle TLS connection takes of the memory of its process."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from pathlib import Path

from mesh.transport.listen import NONE
from tests.support.hall import Hall
from tests.support.loop import run
from tests.support.tlsclient import Client
from tests.support.town import Town

MANY = 400
MOST = 62 << 10  # bytes of both ends; 52 KB were measured, and 75 KB with the buffers of the server in the heap


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(folder: str, answer: multiprocessing.SimpleQueue[float]) -> None:
    """The bytes of each of the later connections; the first ones fill caches."""
    town = Town(Path(folder))

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
            answer.put((resident() - before) / MANY)

    run(main())


def test_an_idle_connection_takes_little_memory(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=measure, args=(str(tmp_path), answer))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert answer.get() < MOST
