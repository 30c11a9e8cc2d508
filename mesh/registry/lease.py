"""A lease that is renewed while its owner lives, and replaced by a new one if it is lost.

It knows the time of a lease and the callback that writes its keys (``attach``). It must never know those keys. What
always holds: ``lost`` is called once for each time that the lease may have ended, before ``attach`` is called again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, final

from mesh.registry.client import EtcdClient, pause
from mesh.registry.errors import LeaseLost, RegistryError, Superseded, Unavailable
from mesh.registry.first import FirstResult
from mesh.registry.tasks import end

log = logging.getLogger("mesh.registry.lease")

TTL: Final = 10
"""Seconds that etcd keeps a lease without a renewal. Broken links reveal a dead node at once; the lease only cleans up,
so it must survive a pause of the process."""


@final
class Lease:
    """One lease with its task."""

    __slots__ = (
        "_attach",
        "_client",
        "_due",
        "_expires",
        "_first",
        "_lost",
        "_stale",
        "_task",
        "_ttl",
        "_wake",
        "id",
    )

    def __init__(
        self, client: EtcdClient, attach: Callable[[int], Awaitable[None]], lost: Callable[[], None], *, ttl: int = TTL
    ) -> None:
        """``attach`` gets the lease's id and writes the keys that belong to it; if it raises Superseded, the lease is
        not renewed any longer."""
        self._client = client
        self._attach = attach
        self._lost = lost
        self._ttl = ttl
        self._task: asyncio.Task[None] | None = None
        self._first = FirstResult()
        self._wake = asyncio.Event()
        self._stale = True
        self._expires = 0.0
        self._due = 0.0
        self.id = 0
        """etcd's id of the lease; 0 while there is none."""

    @property
    def held(self) -> bool:
        """Whether the lease was renewed in time and its keys are written."""
        return self.id != 0 and not self._stale

    async def start(self, wait: float) -> bool:
        """Take the lease and keep it; return whether that succeeded within ``wait`` seconds. If not, the attempts
        continue.

        Raises RegistryError if a retry cannot help."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="etcd lease")
        try:
            return await self._first.wait(wait)
        except RegistryError:
            await self.stop()
            raise

    def refresh(self) -> None:
        """Call ``attach`` again, soon: the keys of the lease have changed."""
        self._stale = True
        self._wake.set()

    async def stop(self) -> None:
        """Revoke the lease, which deletes its keys at once; if etcd is unavailable they are deleted when it expires."""
        task, self._task = self._task, None
        if task is not None:
            await end(task)
        lease, self.id = self.id, 0
        if lease:
            try:
                await self._client.revoke(lease, timeout=1.0)
            except RegistryError as error:
                log.info("lease %x was not revoked and expires by itself: %s", lease, error)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._keep()
                failures = 0
            except LeaseLost as error:
                log.warning("%s; taking a new one", error)
                self._mark_lost()
                self.id = 0
            except Superseded as error:
                log.error("%s", error)
                self._first.failed(error)
                return
            except RegistryError as error:
                failures = self._failed(error, failures)
            except Exception:
                log.exception("the keys of a lease could not be written")
                failures += 1
            if failures:
                await asyncio.sleep(pause(failures))

    async def _keep(self) -> None:
        """One round: take the lease, write its keys, and renew it a third of its time after the last renewal."""
        now = asyncio.get_running_loop().time
        if not self.id:
            asked = now()
            self.id, seconds = await self._client.grant(self._ttl)
            self._renewed(asked, seconds)
            self._stale = True
        if self._stale:
            # Before the call: a change during the call must be written again.
            self._stale = False
            try:
                await self._attach(self.id)
            except BaseException:
                self._stale = True
                raise
            self._first.succeeded()
        if now() < self._due and await self._woken(self._due - now()):
            return
        asked = now()
        self._renewed(asked, await self._client.keep_alive(self.id))

    def _renewed(self, asked: float, seconds: int) -> None:
        """etcd gave the lease ``seconds``, counted at the earliest from the request."""
        self._expires = asked + seconds
        self._due = asked + seconds / 3

    async def _woken(self, wait: float) -> bool:
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    def _failed(self, error: RegistryError, failures: int) -> int:
        if not self._first.known and not isinstance(error, Unavailable):
            self._first.failed(error)
        if failures == 0:
            log.warning("a lease could not be renewed: %s", error)
        if self.id and asyncio.get_running_loop().time() > self._expires:
            self._mark_lost()
        return failures + 1

    def _mark_lost(self) -> None:
        """The lease has ended, or may have. If etcd still has it later (its clock stood still), its keys are written
        again anyway."""
        if not self._stale:
            self._stale = True
            self._lost()
