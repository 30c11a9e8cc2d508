"""Follows the settings in force for the controller, in a thread with an event loop of its own.

Knows etcd's keys of the settings and how a revision becomes a plan. It must never know the nodes that run. What always
holds: a plan is passed on only if its revision is not older than the last one; without etcd the last plan stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, final

from mesh.cluster.leaving import Counts
from mesh.cluster.plan import ClusterPlan, revised
from mesh.cluster.revise import NotChanged, begin
from mesh.cluster.revisions import Revisions, topology_in
from mesh.node.registry import client_of
from mesh.registry.census import census
from mesh.registry.client import EtcdClient
from mesh.registry.errors import RegistryError
from mesh.registry.settings import SettingsStore
from mesh.registry.settingswatch import SettingsWatch
from mesh.registry.tasks import end
from mesh.topology.topology import Topology, from_dict

log = logging.getLogger(__name__)

# Seconds between two attempts, and between two looks for revisions that the controller wants.
_AGAIN: Final = 1.0

# Seconds for one count of the map, which may have millions of records.
_COUNT: Final = 60.0

# Seconds for the thread to end its calls.
_END: Final = 5.0


@final
class Following:
    """``told`` gets the newest plan as soon as etcd has answered, and again when it changes; and whether etcd answers
    and has this plan in force: it may also have lost its keys. It is called in this thread. ``counts``: for the
    vehicles of edges that are to stop."""

    def __init__(
        self, plan: ClusterPlan, revisions: Revisions, counts: Counts, told: Callable[[ClusterPlan, bool], None]
    ) -> None:
        self._plan = plan
        self._revisions = revisions
        self._counts = counts
        self._told = told
        self._trouble = ""
        self._said: tuple[int, bool] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._work, name="mesh-settings", daemon=True)

    def start(self) -> None:
        """Follow until ``stop``. Without settings that etcd could have there is nothing to follow."""
        try:
            topology = from_dict(dict(self._plan.settings))
        except (KeyError, TypeError, AttributeError):
            return  # a plan of tests, whose settings are no topology
        if self._plan.endpoints:
            self._loop = asyncio.new_event_loop()
            self._task = self._loop.create_task(self._run(topology), name="settings")
            self._thread.start()

    def stop(self) -> None:
        """End the thread. Not called in it."""
        if self._loop is not None and self._task is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(_END)

    def _work(self) -> None:
        assert self._loop is not None, "start has made it"
        assert self._task is not None, "start has made it"
        try:
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(self._task)
        finally:
            self._loop.close()

    async def _run(self, topology: Topology) -> None:
        while True:
            try:
                client = client_of(topology, self._plan.endpoints)
                try:
                    await self._follow(client)
                finally:
                    await client.close()
            except (RegistryError, OSError, ValueError) as error:  # an embedded etcd has no certificate before it runs
                self._failed(str(error))
            except Exception as error:  # noqa: BLE001 - a fault of the mesh must not end it
                self._failed(repr(error), error)
            await asyncio.sleep(_AGAIN)

    def _tell(self, current: bool) -> None:
        if self._said != (self._plan.revision, current):
            self._said = (self._plan.revision, current)
            self._told(self._plan, current)

    def _failed(self, why: str, fault: Exception | None = None) -> None:
        if self._said is not None:
            self._tell(False)
        if why != self._trouble:
            log.warning("the settings in force are not known: %s", why, exc_info=fault)
        self._trouble = why

    async def _follow(self, client: EtcdClient) -> None:
        """Pass on each revision. Raises ``RegistryError``, ``ValueError``."""
        store, watch = SettingsStore(client, self._plan.mesh), SettingsWatch(client, self._plan.mesh)
        wake = asyncio.Event()
        watch.on_change = wake.set
        seen: int | None = None
        counting = asyncio.create_task(self._count(client), name="count")
        try:
            await watch.start(_AGAIN)
            while True:
                wake.clear()
                if watch.known:
                    number = watch.current
                    if number != seen:
                        if self._plan.revision or not await self._begin(client):
                            await self._take(store, number)
                        seen = number
                    self._tell(watch.live and number == self._plan.revision != 0)
                await self._look_up(store)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN):
                        await wake.wait()
        finally:
            await end(counting)
            await watch.stop()

    async def _count(self, client: EtcdClient) -> None:
        """Count the vehicles of the edges that are to stop, each time when it is due."""
        while True:
            await asyncio.sleep(_AGAIN)
            if not self._counts.due():
                continue
            begun = time.monotonic()
            try:
                found = await census(client, self._plan.mesh, lambda vehicle, edge: False, _COUNT)
            except RegistryError as error:  # the settings are followed with the same client, and say so
                log.debug("the vehicles are not counted: %s", error)
            else:
                self._counts.put(begun, found.edges, found.exact)

    async def _begin(self, client: EtcdClient) -> bool:
        """Put the settings in force with which the mesh has started without etcd, as ``mesh up`` would have done;
        ``False`` if they cannot be."""
        try:
            made = await begin(client, from_dict(dict(self._plan.settings)), None, 0)
        except NotChanged as error:
            log.error("the settings with which the mesh has started cannot be in force: %s", error)
            return False
        self._plan = replace(self._plan, revision=made.number)
        log.info("the settings with which the mesh has started are revision %d", made.number)
        self._trouble = ""
        return True

    async def _take(self, store: SettingsStore, number: int) -> None:
        revision = await store.revision(number) if number > self._plan.revision else None
        if revision is not None:
            self._plan = revised(self._plan, topology_in(revision), number, revision.over)
            log.info("revision %d is in force", number)
        elif number < self._plan.revision:
            what = f"revision {number}" if number else "no settings"
            log.warning("etcd has %s in force, after revision %d: it was set back", what, self._plan.revision)
        self._trouble = ""

    async def _look_up(self, store: SettingsStore) -> None:
        """Get the revisions that the controller wants to compare."""
        for number in self._revisions.wanted():
            found = await store.revision(number)
            if found is None:
                # No longer kept. The revisions since then have not restarted the node, so the oldest one serves.
                history = await store.history()
                found = history[-1] if history else None
            if found is not None:
                self._revisions.put(number, topology_in(found))
