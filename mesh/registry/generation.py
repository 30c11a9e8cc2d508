"""The generation of the map: a number that tells the maps apart that etcd has held one after the other.

etcd may be emptied, or set back to an older state. Then vehicles get new owners, and epochs begin again; an epoch of
the map before must not be compared with one of the map after. So each map has a generation, a number in one key, and
every process that sees that the map is not the one it knew writes a higher number.

It knows one key, revisions and the number. It must never know vehicles. What always holds:

- The generation that a process knows never goes down, also across its restarts if it has a file.
- etcd was emptied if it has no key. It was set back if the number is lower, the cluster another one, the revision below
  the one known, or the history of a watch ended. The process that notices this writes a number that is higher than any
  that it knew.
- Of several processes that notice it at the same time, one writes, and the others take its number.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, final

from mesh.private import read_own
from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient, absent, get, put, unchanged
from mesh.registry.errors import BadRecord, Conflict
from mesh.registry.keys import Keys

log = logging.getLogger("mesh.registry.generation")

TRIES: Final = 16
"""How often the key is read again because another process wrote it at the same time."""

EPOCH_BITS: Final = 32
MOST: Final = (1 << 32) - 1
"""Generation and epoch share 64 bits where a front door tells an edge of a record."""


class Known(NamedTuple):
    """The last state of etcd that a process has seen: the generation, etcd's revision and the id of its cluster."""

    generation: int = 0
    revision: int = 0
    cluster: int = 0


def nothing(_generation: int) -> None:
    """The default: no listener."""


@final
class Generation:
    """The generation of one mesh's map, as one process knows it. ``check`` is called when the process has connected to
    etcd, and whenever etcd's history is not the one followed so far."""

    __slots__ = ("_client", "_clock", "_key", "_path", "known", "on_change")

    def __init__(
        self, client: EtcdClient, mesh: str, path: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """``path``: the file that keeps what is known; without it a restarted process knows nothing. ``clock`` gives
        seconds since 1970. Raises NotPrivate if the file is another user's; OSError."""
        self._client = client
        self._key = Keys(mesh).generation
        self._path = path
        self._clock = clock
        self.known = Known() if path is None else _read(path)
        self.on_change: Callable[[int], None] = nothing
        """Called with the number of each new generation, also of the first one."""

    @property
    def number(self) -> int:
        """The generation; 0 before the first ``check``."""
        return self.known.generation

    async def check(self, reset: bool = False) -> int:
        """Compare etcd with what is known, begin a new generation if it was emptied or set back, and return the
        generation. ``reset``: a watch has seen that etcd's history is another one.

        Raises RegistryError; then nothing has changed here, and the call may be repeated."""
        for _ in range(TRIES):
            found = await self._client.range(pb.RangeRequest(key=self._key))
            header = found.header
            number = _number(found.kvs)
            if number and not self._is_older(number, header, reset):
                await self._learn(Known(number, header.revision, header.cluster_id))
                return number
            reset = False  # if another process writes first, the key shows that
            fresh = min(MOST, max(number + 1, self.known.generation + 1, int(self._clock())))
            made = await self._write(found.kvs, fresh)
            if made is not None:
                if self.known.generation:
                    log.warning("etcd was emptied or set back: generation %d of the map begins", fresh)
                await self._learn(Known(fresh, made.revision, made.cluster_id))
                return fresh
        raise Conflict(f"{self._key.decode()} was changed by other processes in {TRIES} tries")

    def _is_older(self, number: int, header: pb.Header, reset: bool) -> bool:
        """Whether etcd is at an older state than the one known."""
        known = self.known
        if number != known.generation:
            return number < known.generation
        return reset or header.cluster_id != known.cluster or header.revision < known.revision

    async def _write(self, found: Sequence[pb.KeyValue], number: int) -> pb.Header | None:
        """Write the number if the key is still as found; return etcd's header, or None if it is not."""
        unseen = unchanged(self._key, found[0].mod_revision) if found else absent(self._key)
        value = json.dumps({"generation": number}).encode()
        request = pb.TxnRequest(compare=[unseen], success=[put(self._key, value)], failure=[get(self._key)])
        # A repeated call whose first try was written finds that number, which is then the generation.
        done = await self._client.txn(request, retry=True)
        return done.header if done.succeeded else None

    async def _learn(self, known: Known) -> None:
        before, self.known = self.known, known
        if self._path is not None:
            await asyncio.to_thread(_save, self._path, known)  # a disk that hangs must not block the loop
        if before.generation != known.generation:
            self.on_change(known.generation)


def _number(found: Sequence[pb.KeyValue]) -> int:
    """The number in the key; 0 if it does not exist. Raises BadRecord."""
    if not found:
        return 0
    try:
        number = json.loads(found[0].value)["generation"]
        if type(number) is int and 0 < number <= MOST:
            return number
    except (ValueError, KeyError, TypeError):
        pass
    raise BadRecord(
        f"{found[0].key.decode(errors='replace')} holds {found[0].value[:80]!r}; "
        'right would be {"generation": number}'
    )


def _read(path: Path) -> Known:
    try:
        return Known(**json.loads(read_own(path)))
    except FileNotFoundError:
        return Known()
    except (ValueError, TypeError) as error:
        log.warning("%s cannot be read and is replaced: %s", path, error)
        return Known()


def _save(path: Path, known: Known) -> None:
    """Replace the file. A failure is logged: without the file only a restart of this process can miss a reset."""
    draft = path.with_suffix(".draft")
    try:
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w", encoding="utf-8") as text:
            json.dump(known._asdict(), text)
        draft.replace(path)
    except OSError as error:
        log.error("%s cannot be written: %s", path, error)
