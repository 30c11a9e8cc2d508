"""A lease that is kept for as long as its owner lives, and taken anew when it was lost.

It knows a lease's time and what must be done again when there is a new one (``attach``). It never knows what hangs on
it. What always holds: ``lost`` is called once for each time that the lease may have ended, before ``attach`` is called
again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, final

from mesh.registry.client import EtcdClient, pause
from mesh.registry.errors import LeaseLost, RegistryError, Superseded, Unavailable
from mesh.registry.tasks import end

log = logging.getLogger("mesh.registry.lease")

TTL: Final = 10
"""Seconds that etcd keeps a lease without a sign of life. A dead node is noticed by its broken links at once; the lease
only cleans up, so that it should not end in a pause of the process."""


@final
class Lease:
    """One lease with its task."""

    __slots__ = (
        "_attach",
        "_client",
        "_due",
        "_expires",
        "_failure",
        "_first",
        "_lost",
        "_poke",
        "_stale",
        "_task",
        "_ttl",
        "id",
    )

    def __init__(
        self, client: EtcdClient, attach: Callable[[int], Awaitable[None]], lost: Callable[[], None], *, ttl: int = TTL
    ) -> None:
        """``attach`` gets the lease's id and writes the keys that hang on it; when it raises Superseded, the lease is
        given up."""
        self._client = client
        self._attach = attach
        self._lost = lost
        self._ttl = ttl
        self._task: asyncio.Task[None] | None = None
        self._first = asyncio.Event()
        self._poke = asyncio.Event()
        self._failure: RegistryError | None = None
        self._stale = True
        self._expires = 0.0
        self._due = 0.0
        self.id = 0
        """etcd's number of the lease; 0 while there is none."""

    @property
    def held(self) -> bool:
        """Whether the lease was renewed in its time and everything is attached to it."""
        return self.id != 0 and not self._stale

    async def start(self, wait: float) -> bool:
        """Take the lease and keep it; gives whether it was there within ``wait`` seconds. If not, it goes on trying.

        Raises RegistryError when trying again will not help."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="etcd lease")
        try:
            async with asyncio.timeout(wait):
                await self._first.wait()
        except TimeoutError:
            return False
        if self._failure is not None:
            failure, self._failure = self._failure, None
            await self.stop()
            raise failure
        return True

    def refresh(self) -> None:
        """Attach again, soon: what hangs on the lease has changed."""
        self._stale = True
        self._poke.set()

    async def stop(self) -> None:
        """Give the lease back, so that its keys are gone at once; without etcd they go when it ends."""
        task, self._task = self._task, None
        if task is not None:
            await end(task)
        lease, self.id = self.id, 0
        if lease:
            try:
                await self._client.revoke(lease, timeout=1.0)
            except RegistryError as error:
                log.info("lease %x was not given back and ends by itself: %s", lease, error)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._keep()
                failures = 0
            except LeaseLost as error:
                log.warning("%s; a new one is taken", error)
                self._gone()
                self.id = 0
            except Superseded as error:
                log.error("%s", error)
                self._failure = error
                self._first.set()
                return
            except RegistryError as error:
                failures = self._failed(error, failures)
            except Exception:
                log.exception("what hangs on a lease could not be attached")
                failures += 1
            if failures:
                await asyncio.sleep(pause(failures))

    async def _keep(self) -> None:
        """One round: a lease, its keys, and a third of its time after the last sign of life the next one."""
        now = asyncio.get_running_loop().time
        if not self.id:
            asked = now()
            self.id, seconds = await self._client.grant(self._ttl)
            self._renewed(asked, seconds)
            self._stale = True
        if self._stale:
            # Before the call: what changes while it runs must be attached again.
            self._stale = False
            try:
                await self._attach(self.id)
            except BaseException:
                self._stale = True
                raise
            self._failure = None
            self._first.set()
        if now() < self._due and await self._poked(self._due - now()):
            return
        asked = now()
        self._renewed(asked, await self._client.keep_alive(self.id))

    def _renewed(self, asked: float, seconds: int) -> None:
        """etcd gave the lease so many seconds, at the earliest when it was asked."""
        self._expires = asked + seconds
        self._due = asked + seconds / 3

    async def _poked(self, wait: float) -> bool:
        try:
            async with asyncio.timeout(wait):
                await self._poke.wait()
        except TimeoutError:
            return False
        self._poke.clear()
        return True

    def _failed(self, error: RegistryError, failures: int) -> int:
        if not self._first.is_set() and not isinstance(error, Unavailable):
            self._failure = error
            self._first.set()
        if failures == 0:
            log.warning("a lease could not be renewed: %s", error)
        if self.id and asyncio.get_running_loop().time() > self._expires:
            self._gone()
        return failures + 1

    def _gone(self) -> None:
        """The lease has, or may have, ended. If etcd still knows it later (its clock stood still), its keys are written
        again all the same."""
        if not self._stale:
            self._stale = True
            self._lost()
