"""Where the keys of tokens come from: a file, or a URL.

It knows sets of keys and when they were read: never tokens. What always holds:

* a set that cannot be used leaves the one before it in force, however long its source does not answer; so does a start
  while it does not answer, if the set is not older than ``KEPT``;
* nothing is read in the loop;
* however many tokens name unknown keys, a URL is asked for them once in ``INTERVAL`` seconds at most, and by one
  request at a time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, final

from mesh.policy.keyset import MAX_BYTES, SECRET, KeySet, read_keys
from mesh.policy.watched import WatchedFile
from mesh.policy.web import NoAnswer, Web
from mesh.private import read_given, read_own, write_own

INTERVAL: Final = 10.0  # seconds
REFRESH: Final = 300.0  # seconds
FIRST: Final = 2.0  # seconds that a start waits for the first answer: a change of the settings has some more in all
KEPT: Final = 86_400.0  # seconds: a key may have been taken away meanwhile
RETRY: Final = 5.0  # seconds after a question without an answer
TIMEOUT: Final = 5.0  # seconds

log = logging.getLogger(__name__)


def _nothing() -> None:
    """A source without an owner."""


def read_file(path: Path, algorithms: Collection[str]) -> KeySet:
    """The keys in a file. Raises ``OSError``; ``NotPrivate`` if other users can have changed it, or read a secret;
    ``ValueError`` as ``read_keys``."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size} bytes, and the limit is {MAX_BYTES}")
    try:
        return read_keys(read_given(path, not SECRET.isdisjoint(algorithms)), algorithms)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


class KeySource:
    """``origin`` tells sources apart: two with the same have the same keys. ``present`` is the set in force, empty
    until one was read. ``changed`` is called after each change of it."""

    def __init__(self, origin: tuple[str, ...] = ()) -> None:
        self.origin = origin
        self.file: Path | None = None
        """Where a set that was fetched is kept, for a start without its server."""
        self.present = KeySet()
        self.changed: Callable[[], None] = _nothing
        self.since = 0.0
        """When the source was last read with success, in seconds since 1970; 0 if it never was."""

    @property
    def fault(self) -> str:
        """Why the set is not what its source has now, in one sentence; empty if it is."""
        return ""

    async def start(self) -> None:
        """Read the keys, and follow their changes. Raises ``OSError`` or ``ValueError`` if they cannot be had, and
        waiting would not help."""

    async def stop(self) -> None:
        """Follow them no longer."""

    def newer(self) -> asyncio.Task[None] | None:
        """A key is missing: the task that looks for a newer set, ``None`` if it is too early for that. Do not cancel
        it."""
        return None

    def inherit(self, before: KeySource) -> None:
        """Begin with the keys of the source that this one replaces, if they are of the same origin."""
        if before.origin == self.origin:
            self.present, self.since = before.present, before.since

    def take(self, keys: KeySet) -> None:
        """These are in force from now on."""
        before, self.present = self.present, keys
        self.since = time.time()
        if before.thumbprints != keys.thumbprints:
            self.changed()


@final
class KeyFile(KeySource):
    """A file. One with secrets must be private."""

    def __init__(self, path: Path, algorithms: Collection[str]) -> None:
        super().__init__((str(path), *algorithms))
        self._path = path
        self._algorithms = tuple(algorithms)
        self._watched = WatchedFile(path, lambda: read_file(self._path, self._algorithms), self.take)

    @property
    def fault(self) -> str:
        return self._watched.fault

    async def start(self) -> None:
        await self._watched.start()

    async def stop(self) -> None:
        await self._watched.stop()


@final
class KeyUrl(KeySource):
    """A URL, asked every ``refresh`` seconds and when a key is missing. ``ca``: as in ``Web``."""

    def __init__(
        self, url: str, algorithms: Collection[str], ca: Path | None = None, *,
        refresh: float = REFRESH, interval: float = INTERVAL, retry: float = RETRY, timeout: float = TIMEOUT,
    ) -> None:  # fmt: skip
        """Raises ``ValueError`` for a URL that may not be asked, and for algorithms with a secret."""
        super().__init__((url, *algorithms))
        if not SECRET.isdisjoint(algorithms):
            raise ValueError("a secret is not fetched from a URL; put it into a private file")
        self._algorithms = tuple(algorithms)
        self._web = Web(url, ca, timeout, MAX_BYTES)
        self._url = url
        self._refresh = refresh
        self._interval = interval
        self._retry = retry
        self._asked = 0.0  # when a fetch last began, by the loop's clock
        self._fetching: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._fault = ""
        self.fetches = 0

    @property
    def fault(self) -> str:
        return self._fault or self._web.fault()

    async def start(self) -> None:
        """A server that does not answer is asked again later. With keys of a source before it, it is not waited for."""
        await self._web.start()
        fetch = self._fetch_once()
        if not self.present:
            await asyncio.wait([fetch], timeout=FIRST)
        if not self.present:
            await self._recall()
        self._following = asyncio.create_task(self._follow(), name=f"keys of {self._url}")

    async def stop(self) -> None:
        tasks = [task for task in (self._following, self._fetching) if task is not None]
        self._following = self._fetching = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._web.stop()

    def newer(self) -> asyncio.Task[None] | None:
        fetching = self._fetching
        if fetching is None and asyncio.get_running_loop().time() - self._asked < self._interval:
            return None
        return self._fetch_once()

    def _fetch_once(self) -> asyncio.Task[None]:
        """The fetch that runs, or a new one."""
        fetching = self._fetching
        if fetching is None:
            self._asked = asyncio.get_running_loop().time()
            fetching = self._fetching = asyncio.create_task(self._fetch())
        return fetching

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._retry if self._fault else self._refresh)
            await asyncio.shield(self._fetch_once())

    async def _fetch(self) -> None:
        self.fetches += 1
        try:
            answer = await self._web.get()
            if answer.status != 200:
                raise NoAnswer(f"{self._url} answered with status {answer.status}, not 200")
            keys = await asyncio.to_thread(self._read, answer.body)
        except (NoAnswer, ValueError) as error:
            self._failed(str(error) if isinstance(error, NoAnswer) else f"{self._url}: {error}")
        except Exception as error:  # noqa: BLE001 - shown, and tried again
            self._failed(f"{self._url}: {error!r}")
        else:
            if self._fault:
                log.info("%s has given keys again", self._url)
            self._fault = ""
            self.take(keys)
        finally:
            self._fetching = None

    def _read(self, text: bytes) -> KeySet:
        """The keys of a set that was fetched, which is kept in the file. Called in a thread."""
        keys = read_keys(text, self._algorithms)
        if self.file is not None:
            kept = {"origin": self.origin, "fetched": time.time(), "keys": text.decode()}
            try:
                write_own(self.file, json.dumps(kept).encode())
            except OSError as error:
                log.warning("the keys of %s are not kept: %s", self._url, error)
        return keys

    async def _recall(self) -> None:
        """Use the set that is kept in the file."""
        keys = await asyncio.to_thread(self._kept)
        if keys is not None and not self.present:
            why = self._fault or f"{self._url} has not answered yet"
            log.warning("%s; the keys in %s are in force, which it gave before", why, self.file)
            self.take(keys)

    def _kept(self) -> KeySet | None:
        """The set in the file, if it is of this source and not too old. Called in a thread."""
        if self.file is None:
            return None
        try:
            found = json.loads(read_own(self.file))
            if tuple(found["origin"]) != self.origin or not 0 <= time.time() - found["fetched"] < KEPT:
                return None
            return read_keys(found["keys"].encode(), self._algorithms)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("the keys in %s are not used: %r", self.file, error)
            return None

    def _failed(self, fault: str) -> None:
        if fault != self._fault:
            log.error("%s; %s", fault, "the keys before stay in force" if self.present else "there are no keys yet")
        self._fault = fault
