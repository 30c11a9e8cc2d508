"""Keeps the generation of the map up to date while a process runs.

It knows the map, its generation and time: never vehicles. What always holds: after a reset of etcd the generation is
checked at once, and otherwise every ``PERIOD`` seconds, since a process that was disconnected meanwhile cannot see from
the watch that etcd was emptied and filled again; the listener is called only after the map of a new generation was
loaded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, final

from mesh.registry.errors import RegistryError, Unavailable
from mesh.registry.generation import Generation
from mesh.registry.map import VehicleMap
from mesh.registry.tasks import end

log = logging.getLogger("mesh.registry.keeper")

PERIOD: Final = 5.0
"""Seconds between two checks: one small question to etcd for each process."""


def nothing() -> None:
    """The default: no listener."""


@final
class GenerationKeeper:
    """One task."""

    __slots__ = ("_generation", "_listener", "_loading", "_map", "_reset", "_task", "_told", "_trouble", "_wake")

    def __init__(self, map: VehicleMap, generation: Generation) -> None:
        self._map = map
        self._generation = generation
        self._wake = asyncio.Event()
        self._reset = False
        self._told = 0
        self._trouble = ""
        self._loading = 0  # the generation for which the map is being loaded again
        self._task: asyncio.Task[None] | None = None
        self._listener: Callable[[], None] = nothing

    def start(self) -> None:
        """Begin. The map may have been started already."""
        self._map.on_reset = self._was_reset
        self._task = asyncio.create_task(self._run(), name="generation of the map")

    def follow(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` once the map of a new generation is loaded; also for the first one, even if that was before
        this call."""
        self._listener = listener
        if self._told:
            listener()

    async def stop(self) -> None:
        if self._task is not None:
            await end(self._task)

    def _was_reset(self) -> None:
        self._reset = True
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._check()
                self._trouble = ""
            except Unavailable as error:  # the watch of the map says so
                log.debug("the generation of the map is not known: %s", error)
            except (RegistryError, OSError) as error:
                self._warn(str(error))
            except Exception:
                log.exception("the generation of the map could not be checked")
            try:
                async with asyncio.timeout(PERIOD):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def _warn(self, trouble: str) -> None:
        """Log what is wrong, once until something else is."""
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning(
                "it is not noticed if etcd is emptied or set back, until this is put right: %s", trouble
            )

    async def _check(self) -> None:
        reset, self._reset = self._reset, False  # first: there may be another one during the check
        try:
            number = await self._generation.check(reset)
        except BaseException:
            self._reset = self._reset or reset
            raise
        if number == self._told:
            return
        # After a reset that the watch saw, the map is that of the new generation already.
        if self._told and not reset and not await self._loaded(number):
            return
        self._told = number
        self._listener()

    async def _loaded(self, number: int) -> bool:
        """Load the map again for a generation. False: it takes longer, and goes on; a large one is not begun anew."""
        if self._loading == number:
            return await self._map.start()
        self._loading = number
        return await self._map.renew()
