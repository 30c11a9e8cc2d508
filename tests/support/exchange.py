"""Sends bytes to a port and returns the whole answer."""

from __future__ import annotations

import asyncio

from tests.support.waiting import PATIENCE


async def exchange(port: int, data: bytes) -> bytes:
    """Send ``data`` on a new connection; return all bytes until the other side closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    return answer
