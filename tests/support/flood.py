"""A process that floods a port with connections which send nothing: ``python -P flood.py PORT COUNT``.

It keeps ``COUNT`` connections open, and replaces each that the server closes, until its standard input ends."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_PAUSE: Final = 0.02  # seconds before a closed connection is replaced


@asynccontextmanager
async def flood(port: int, count: int) -> AsyncIterator[None]:
    """A flood from another process, whose descriptors are its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", __file__, str(port), str(count), stdin=asyncio.subprocess.PIPE
    )
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _one(port: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await reader.read()
            finally:
                writer.close()
        await asyncio.sleep(_PAUSE)


async def _main(port: int, count: int) -> None:
    tasks = [asyncio.create_task(_one(port)) for _ in range(count)]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))
