"""Bans and kicks at one node: it follows them in etcd, keeps the bans in its folder, and has connections ended.

It knows records, the table of bans and a file: never how a connection ends. What always holds:

- Before the node accepts clients, it has the bans of etcd or, without etcd, those of its folder, which no revision of
  the settings and no new run of the mesh makes void.
- After bans were added, all open connections are looked at, at most once in ``PAUSE`` seconds. Kicks are handled one
  after the other, and each is answered.
- Work for etcd or the disk that fails is logged; a ban is in force at this node nevertheless.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, final

from mesh.broker.claim import Claim, Ended, Ends
from mesh.broker.peer import Peer
from mesh.policy.bans import Bans
from mesh.private import read_own, write_own
from mesh.registry.bans import CLIENT_ID, MOST, Ban, BanStore, BanWatch, Kick, from_plain
from mesh.registry.client import EtcdClient
from mesh.registry.errors import RegistryError
from mesh.registry.tasks import end
from mesh.wire.reasons import ADMINISTRATIVE_ACTION, BANNED

log = logging.getLogger(__name__)

NAME: Final = "bans.json"
PAUSE: Final = 0.1  # seconds: many bans that are added at once are one look at the connections
KICKS: Final = 100  # that wait for their turn
_LINES: Final = 8  # in the log, of bans that come together
_KICK: Final = 10.0  # seconds in which all connections are looked at for a kick
_AGAIN: Final = 5.0  # seconds until the file is tried again

Expel = Callable[[Ends, Ended], None]
"""Ends the connections for which its first argument gives a reason, and tells the second how many."""


@final
class Revocation:
    """``kind`` is that of the names of this node's clients: vehicle or user. ``expel`` ends connections; a node without
    it, which accepts no clients itself, only has the bans."""

    def __init__(
        self, client: EtcdClient, mesh: str, name: str, folder: Path, bans: Bans, kind: str,
        expel: Expel | None = None,
    ) -> None:
        self._watch = BanWatch(client, mesh)
        self._store = BanStore(client, mesh)
        self._name = name
        self._file = folder / NAME
        self._bans = bans
        self._kind = kind
        self._expel = expel
        self._looking: asyncio.TimerHandle | None = None
        self._kicks: deque[Kick] = deque()
        self._work = asyncio.Event()  # for the task
        self._unsaved = False
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    async def start(self, wait: float) -> None:
        """Have the bans in force; waits up to ``wait`` seconds for etcd. Raises RegistryError if waiting cannot help
        (wrong password)."""
        self._watch.on_bans = self._changed
        self._watch.on_kick = self._kicked
        kept = await asyncio.to_thread(read_bans, self._file)
        self._watch.assume(kept)
        self._unsaved = False
        self._task = asyncio.create_task(self._run(), name="revocation")
        await self._watch.start(wait)

    async def stop(self) -> None:
        """Follow no more. The table stays as it is."""
        self._stopped = True
        if self._looking is not None:
            self._looking.cancel()
        await self._watch.stop()
        task, self._task = self._task, None
        if task is not None:
            await end(task)

    def silences(self, key: tuple[int, str, str], origin: Peer) -> bool:
        """Whether the will of a session with this key must not be published. ``origin``: where its client was last
        connected from."""
        _, name, client_id = key
        return self._bans.found(origin, client_id, self._kind, name) is not None

    # The watch

    def _changed(self, fresh: Sequence[Ban], gone: Sequence[Ban]) -> None:
        for ban in gone[:_LINES]:
            log.info("the ban of %s has ended", ban)
        for ban in fresh[:_LINES]:
            log.info("banned by %s: %s", ban.by, ban)
        if max(len(fresh), len(gone)) > _LINES:
            log.info("%d bans are new at once, and %d have ended", len(fresh), len(gone))
        self._bans.remove(gone)
        self._bans.put(fresh)
        self._unsaved = True
        self._work.set()
        if fresh and self._expel is not None and self._looking is None and not self._stopped:
            self._looking = asyncio.get_running_loop().call_later(PAUSE, self._look)

    def _look(self) -> None:
        """Look at all connections."""
        self._looking = None
        bans, kind, expel = self._bans, self._kind, self._expel
        assert expel is not None, "only then this is called"

        def ends(claim: Claim | None, peer: Peer, client_id: str) -> int:
            found = bans.found(peer, client_id, kind, "" if claim is None else claim.name)
            return 0 if found is None else BANNED

        expel(ends, self._banned)

    def _banned(self, ended: int) -> None:
        self._bans.ended += ended
        if ended:
            log.info("%d connections were ended by bans", ended)

    def _kicked(self, kick: Kick) -> None:
        if self._expel is None:
            return
        if len(self._kicks) >= KICKS:
            log.warning("a kick of %s is not done: %d wait already; kick again", kick, KICKS)
            return
        self._kicks.append(kick)
        self._work.set()

    # The task: answers, and the file

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._kicks and self._expel is not None:
                await self._kick(self._kicks.popleft(), self._expel)
            if self._unsaved:
                await self._save()

    async def _kick(self, kick: Kick, expel: Expel) -> None:
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def ends(claim: Claim | None, peer: Peer, client_id: str) -> int:
            name = "" if claim is None else claim.name
            hit = client_id == kick.value if kick.kind == CLIENT_ID else kick.kind == self._kind and name == kick.value
            return ADMINISTRATIVE_ACTION if hit else 0

        expel(ends, lambda ended: None if told.done() else told.set_result(ended))
        try:
            async with asyncio.timeout(_KICK):
                ended = await told
        except TimeoutError:
            log.error("the kick of %s was not done within %g s", kick, _KICK)
            return
        self._bans.kicked += ended
        log.info("kicked by %s: %s: %d connections were ended", kick.by, kick, ended)
        try:
            await self._store.answer(kick, self._name, ended)
        except RegistryError as error:
            log.warning("the kick of %s could not be answered: %s", kick, error)

    async def _save(self) -> None:
        self._unsaved = False
        try:
            await asyncio.to_thread(_write, self._file, self._watch.present())
        except OSError as error:
            log.error("the bans are not on disk, where a start without etcd would look for them: %s", error)
            self._unsaved = True
            asyncio.get_running_loop().call_later(_AGAIN, self._work.set)


def _write(path: Path, bans: list[Ban]) -> None:
    """One ban a line, so that the thread does not hold the loop up for long. Raises ``OSError``."""
    write_own(path, b"".join(json.dumps(asdict(ban)).encode() + b"\n" for ban in bans))


def read_bans(path: Path) -> list[Ban]:
    """The bans that a node has kept. A line that is none is logged and left out."""
    try:
        lines = read_own(path, secret=True).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        log.error("the bans in the folder are not used: %s", error)
        return []
    found: list[Ban] = []
    for number, line in enumerate(lines[:MOST], 1):
        try:
            found.append(from_plain(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            log.error("line %d of %s is no ban, and not used: %r", number, path, error)
    return found
