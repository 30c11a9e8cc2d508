"""Follows all keys below one prefix, or in one range: a snapshot, then every later change, in order, without a gap,
until stopped.

It knows revisions, streams and how they fail. It must never know the meaning of the keys: its ``WatchFollower`` does.

What always holds:

- A follower sees a snapshot of one revision, then the changes of each later revision once, in order. If that is not
  possible (the history was compacted, or etcd was restored to an older state) it gets another snapshot and computes the
  difference itself.
- ``revision`` advances only after a whole response with all its fragments is applied. So a stream that breaks in the
  middle of a response resumes before it, not after.
- After ``QUIET`` seconds of silence on a stream, etcd is asked for a progress notice; without an answer the stream is
  closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Final, Protocol, final

import grpc
import grpc.aio

from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient, WatchCall, pause
from mesh.registry.errors import Compacted, RegistryError, Unavailable
from mesh.registry.first import FirstResult
from mesh.registry.keys import after
from mesh.registry.tasks import end

log = logging.getLogger("mesh.registry.watch")

QUIET: Final = 10.0
"""Seconds of silence after which etcd is asked for a progress notice. gRPC's own pings detect a dead connection; this
detects an etcd that keeps the connection but lost the watch."""

ANSWER: Final = 5.0
"""Seconds that etcd has for its first answer and for a progress notice."""

SETTLE: Final = 0.5
"""Seconds without a change after which a resumed watch counts as up to date. etcd does not announce this, but it sends
missed changes every 0.1 s until none is left."""

PORTION: Final = 256
"""Entries or changes that are applied before the loop runs again: about five milliseconds."""

MAX_FRAGMENTS: Final = 4096
"""Fragments of one response. etcd splits at its request size (1.5 MB) and sends at most 1,000 revisions in a
response."""


class WatchFollower(Protocol):
    """Keeps a view of the keys."""

    def begin(self, revision: int, since: int) -> None:
        """A snapshot as of ``revision`` starts. ``since`` is the last revision whose changes were applied; 0: there is
        none, or etcd has another history, so that earlier revisions are not comparable."""

    def page(self, entries: Sequence[pb.KeyValue]) -> bool:
        """Some entries of the snapshot, sorted by key. Returns False to end the snapshot."""

    def end(self) -> Iterator[None]:
        """The snapshot is complete: compare it with what was known, and yield after each ``PORTION`` of entries. Not
        called if the snapshot failed; then ``begin`` is called again."""

    def apply(self, events: Sequence[pb.Event]) -> None:
        """Changes after the snapshot, in order."""


class Rebuild(Exception):
    """The stream cannot resume where it ended. ``reset``: etcd's history is not the one followed so far."""

    def __init__(self, why: str, reset: bool = False) -> None:
        super().__init__(why)
        self.reset = reset


@final
class Watch:
    """Keeps one follower up to date until ``stop``. One task, one stream."""

    __slots__ = (
        "_client",
        "_cluster",
        "_end",
        "_first",
        "_follower",
        "_head",
        "_prefix",
        "_quiet",
        "_task",
        "live",
        "rebuilt",
        "revision",
    )

    def __init__(
        self, client: EtcdClient, prefix: bytes, follower: WatchFollower, *, end: bytes = b"", quiet: float = QUIET
    ) -> None:
        """With ``end``, the watch follows the keys from ``prefix`` to the one before ``end``."""
        self._client = client
        self._prefix = prefix
        self._end = end or after(prefix)
        self._follower = follower
        self._quiet = quiet
        self._cluster = 0
        # etcd's revision when the stream was opened; 0: not open yet.
        self._head = 0
        self._task: asyncio.Task[None] | None = None
        self._first = FirstResult()
        self.live = False
        """Whether a stream is open and up to date: the follower lags behind etcd by at most the messages in transit."""
        self.revision = 0
        """The last revision that is completely applied."""
        self.rebuilt = 0
        """The number of snapshots so far."""

    async def start(self, wait: float) -> bool:
        """Start following; return whether the first snapshot was applied within ``wait`` seconds. If not, the attempts
        continue.

        Raises RegistryError if a retry cannot help, as for a wrong password."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"watch {self._prefix.decode(errors='replace')}")
        try:
            return await self._first.wait(wait)
        except RegistryError:
            await self.stop()
            raise

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await end(task)

    async def _run(self) -> None:
        failures = 0
        since = 0
        fresh = False
        while True:
            try:
                if not fresh:
                    await self._snapshot(since)
                    fresh = True
                    self._first.succeeded()
                await self._stream()
            except Rebuild as reason:
                log.warning("the watch of %s restarts with a snapshot: %s", self._prefix.decode(), reason)
                fresh = False
                since = 0 if reason.reset else self.revision
                failures = 0
            except RegistryError as error:
                failures = self._failed(error, 0 if self.live or self._head else failures)
            except Exception:
                # A fault of the follower must not end the watch: the node would miss all later changes.
                log.exception("the watch of %s failed and restarts with a snapshot", self._prefix.decode())
                fresh = False
                since = self.revision
                failures += 1
            finally:
                self.live = False
            await asyncio.sleep(pause(failures))

    def _failed(self, error: RegistryError, failures: int) -> int:
        if not self._first.known and not isinstance(error, Unavailable | Compacted):
            self._first.failed(error)
        if failures == 0:
            log.warning("the watch of %s is interrupted: %s", self._prefix.decode(), error)
        return failures + 1

    async def _snapshot(self, since: int) -> None:
        revision = 0
        pages = self._client.pages(self._prefix, end=self._end)
        try:
            async for page in pages:
                if not revision:
                    revision = page.header.revision
                    self._cluster = page.header.cluster_id
                    self._follower.begin(revision, since)
                more = True
                for start in range(0, max(len(page.kvs), 1), PORTION):
                    more = more and self._follower.page(page.kvs[start : start + PORTION])
                    await asyncio.sleep(0)
                if not more:
                    break
        finally:
            await pages.aclose()
        for _ in self._follower.end():
            await asyncio.sleep(0)
        self.revision = revision
        self.rebuilt += 1

    async def _stream(self) -> None:
        """Apply changes until the stream ends. Always raises: Rebuild, or the reason of the end."""
        request = pb.WatchCreate(
            key=self._prefix,
            range_end=self._end,
            start_revision=self.revision + 1,
            progress_notify=True,
            prev_kv=True,
            fragment=True,
        )
        self._head = 0
        call, url = await self._client.watch(request)
        reading: asyncio.Task[object] | None = None
        try:
            fragments: list[pb.Event] = []
            pieces = 0
            while True:
                reading = asyncio.ensure_future(call.read())
                response = await self._next(call, reading, url)
                self._check(response, url)
                if response.created:
                    await self._created(response.header.revision, url)
                if not response.events:
                    self._idle(response)
                    continue
                fragments.extend(response.events)
                pieces += 1
                if not response.fragment:
                    await self._apply(fragments)
                    # Not the header's revision: while a watch catches up, that is etcd's current one, ahead of changes
                    # that are still to come.
                    self.revision = fragments[-1].kv.mod_revision
                    self.live = self.live or self.revision >= self._head
                    fragments, pieces = [], 0
                elif pieces > MAX_FRAGMENTS:
                    raise Rebuild(f"a response of {url} had more than {MAX_FRAGMENTS} fragments")
        finally:
            call.cancel()
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _apply(self, events: list[pb.Event]) -> None:
        """Apply a response. One can have a hundred thousand changes: the loop runs in between."""
        for start in range(0, len(events), PORTION):
            if start:
                await asyncio.sleep(0)
            self._follower.apply(events[start : start + PORTION])

    async def _next(self, call: WatchCall, reading: asyncio.Task[object], url: str) -> pb.WatchResponse:
        """The next response; after silence, asks for a progress notice. The read is a task because cancelling a read
        cancels the stream."""
        silence = self._quiet if self.live else SETTLE if self._head else ANSWER
        done, _ = await asyncio.wait({reading}, timeout=silence)
        if not done and self._head and not self.live:
            self.live = True
            done, _ = await asyncio.wait({reading}, timeout=self._quiet)
        try:
            if not done and self.live:
                async with asyncio.timeout(ANSWER):
                    await call.write(pb.WatchRequest(progress=pb.WatchProgress()))
                done, _ = await asyncio.wait({reading}, timeout=ANSWER)
            if not done:
                raise TimeoutError("etcd did not answer")
            response = reading.result()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError) as error:
            raise self._client.broken(error, url) from None
        except asyncio.CancelledError:
            if reading.cancelled() and not _cancelling():
                raise Unavailable(f"Watch at {url}: the client was closed") from None
            raise
        if not isinstance(response, pb.WatchResponse):
            raise self._client.broken(EOFError("the stream has ended"), url)
        return response

    def _check(self, response: pb.WatchResponse, url: str) -> None:
        """Raise if the response ends the watch or comes from another cluster."""
        if response.canceled:
            if response.compact_revision:
                raise Rebuild(f"etcd's history now begins at revision {response.compact_revision}")
            # etcd reports "permission denied" if it no longer knows the token of a watch.
            self._client.forget_token()
            raise Unavailable(f"Watch at {url}: etcd ended it: {response.cancel_reason or 'no reason given'}")
        if response.header.cluster_id != self._cluster:
            raise Rebuild(f"{url} now belongs to another cluster", reset=True)

    async def _created(self, revision: int, url: str) -> None:
        """etcd created the watch; the member that serves it is at ``revision``."""
        if revision < self.revision:
            # This member may lag behind the others; a read that a majority confirms shows whether it does.
            head = await self._client.range(pb.RangeRequest(key=self._prefix, count_only=True))
            if head.header.revision < self.revision:
                # A watch from a future revision would stay silent until the new history reaches that revision.
                why = f"etcd is at revision {head.header.revision}, before {self.revision}: its state was reset"
                raise Rebuild(why, reset=True)
        self._head = max(revision, 1)
        self.live = revision <= self.revision

    def _idle(self, response: pb.WatchResponse) -> None:
        """A response without events. A progress notice that etcd sends unasked has the watch's id, and all changes up
        to its revision were sent. The answer to a request has id -1 and, before etcd 3.5.8, may overtake changes, so it
        shows only that the watch is alive."""
        if not response.created and response.watch_id >= 0:
            self.revision = max(self.revision, response.header.revision)


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
