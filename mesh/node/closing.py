"""Closes the parts of a node, whatever goes wrong with one of them.

What always holds: each part is closed, also after an error or a time-out in one before it: what is left open would hold
the journal's lock, a port or a task, and the next attempt to start would fail for that reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

LATE: Final = 1.0
"""Seconds that a part has when the time is over: enough to close a journal, or to withdraw an announcement."""


async def close_together(closings: Iterable[Awaitable[None]]) -> None:
    """Close parts at the same time. Waits for all of them, then raises what the first of them raised."""
    for result in await asyncio.gather(*closings, return_exceptions=True):
        if result is not None:
            raise result


async def close_all(*closings: Callable[[], Awaitable[None]]) -> None:
    """Call each in order. When this is cancelled, the rest has ``LATE`` seconds each. Raises what was raised first."""
    first: BaseException | None = None
    late = False
    for close in closings:
        try:
            if late:
                async with asyncio.timeout(LATE):
                    await close()
            else:
                await close()
        except asyncio.CancelledError as error:
            late, first = True, first or error
        except Exception as error:  # noqa: BLE001 - raised below
            first = first or error
    if first is not None:
        raise first
