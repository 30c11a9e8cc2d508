"""Follows the mesh's settings: prepares and votes for what is proposed, and takes what is in force.

It knows revisions and what a node answers: never what a setting means, which is the business of the node's ``prepare``.
What always holds:

- The node follows one whole revision. A newer one takes effect in one turn of the loop, or not at all; an older one
  never: an etcd that was emptied or set back changes nothing here.
- A vote is given after the revision was prepared. What is withdrawn, or overtaken by another one, is undone.
- A revision that is in force, and that this node cannot prepare, is reported in its confirmation and its status, and
  tried again; the node goes on with the one that it has.
- A part that could not take a prepared revision is reported likewise, until the next revision.
- The work follows the state of etcd, not its events: after any interruption one round leads to the same end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, final

from mesh.node.closing import close_all
from mesh.node.config import NodeConfig
from mesh.node.kept import keep
from mesh.node.newest import revised
from mesh.node.prepared import Prepared
from mesh.registry.ballot import Ballot
from mesh.registry.client import EtcdClient
from mesh.registry.errors import RegistryError, Unavailable
from mesh.registry.inquiry import Inquiries
from mesh.registry.settings import Revision, SettingsStore
from mesh.registry.settingswatch import SettingsWatch
from mesh.registry.tasks import end

log = logging.getLogger(__name__)

_PREPARE: Final = 8.0  # seconds; less than the command waits for the votes
_AGAIN: Final = 1.0  # seconds after an error of etcd
_RETRY: Final = 5.0  # seconds between two attempts to prepare a revision that is in force, or to write it to disk

Prepare = Callable[[NodeConfig], Awaitable[Prepared]]
"""Prepares a change and changes nothing that serves. Raises ``ValueError`` or ``OSError`` with one sentence. One that
raises or is cancelled has closed what it opened."""

Tell = Callable[[], Mapping[str, object]]
"""What is in force in the parts of a node, by name, as values for JSON. It has no secrets."""


@final
@dataclass(frozen=True, slots=True)
class Candidate:
    """A revision that is prepared. ``present``: whether it has this node; one that is removed by it keeps what it has
    until it is stopped."""

    revision: Revision
    config: NodeConfig
    prepared: Prepared
    present: bool

    @property
    def number(self) -> int:
        return self.revision.number


class NotPrepared(Exception):
    """The node cannot take a revision; the message is one sentence."""


@final
class SettingsFollower:
    """One task. ``config`` is what the node follows, ``begun`` the revision with which it started. ``inquiries`` are
    answered while it follows."""

    def __init__(
        self, config: NodeConfig, prepare: Prepare, store: SettingsStore, watch: SettingsWatch, ballot: Ballot,
        inquiries: Inquiries | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.begun = config.revision
        self._prepare = prepare
        self._store = store
        self._watch = watch
        self._ballot = ballot
        self._inquiries = inquiries
        self._candidate: Candidate | None = None
        self._voted = 0  # the last proposal that was answered
        self._said: tuple[int, str] | None = None  # the confirmation: revision and error
        self._refused = 0  # the revision in force that could not be prepared
        self._retry = 0.0  # when to try again, on the loop's clock
        self._unsaved: Revision | None = None
        self._unsaved_error = ""
        self._fault = ""  # of the commit of the revision followed
        self._behind = 0  # the revision in force, if it is older than the one followed
        self._trouble = ""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, client: EtcdClient, config: NodeConfig, prepare: Prepare, tell: Tell) -> SettingsFollower:
        """The follower of a node, which closes ``client`` later."""
        mesh = config.topology.mesh
        inquiries = Inquiries(
            client, mesh, config.name, lambda: {"revision": follower.revision, "settings": dict(tell())}
        )
        follower = cls(
            config, prepare, SettingsStore(client, mesh), SettingsWatch(client, mesh),
            Ballot(client, mesh, config.name), inquiries,
        )  # fmt: skip
        return follower

    @property
    def revision(self) -> int:
        """The number of the revision that the node follows; 0 if its settings have none."""
        return self.config.revision

    @property
    def detail(self) -> str:
        """What is wrong, in one sentence each; empty if nothing is."""
        parts: list[str] = []
        if self._refused and self._said is not None:
            kept = f"this node goes on with revision {self.revision}"
            parts.append(f"revision {self._refused} is in force, and {kept}: {self._said[1]}")
        if self._fault:
            parts.append(f"a part of this node did not take revision {self.revision}: {self._fault}")
        if self._behind:
            parts.append(
                f"etcd was set back to revision {self._behind} and this node follows revision {self.revision}: put the "
                "settings in force again with 'mesh up'"
            )
        if self._unsaved is not None:
            what = f"revision {self._unsaved.number} is not on disk"
            parts.append(f"{what}, where a start without etcd would look for it: {self._unsaved_error}")
        return "; ".join(parts)

    async def start(self) -> None:
        """Begin, and do not wait for etcd. Raises RegistryError if waiting cannot help (wrong password)."""
        self._watch.on_change = self._wake.set
        self._task = asyncio.create_task(self._run(), name="settings")
        await self._watch.start(0.0)
        await self._ballot.start(0.0)
        if self._inquiries is not None:
            await self._inquiries.start()

    async def stop(self) -> None:
        """End, and undo what is prepared and not in force."""
        try:
            await close_all(self._end, self._stop_inquiries, self._watch.stop, self._ballot.stop)
        finally:
            self._withdraw()

    async def _stop_inquiries(self) -> None:
        if self._inquiries is not None:
            await self._inquiries.stop()

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await end(task)

    async def _run(self) -> None:
        while True:
            pause = await self._guarded()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()

    async def _guarded(self) -> float | None:
        """One round; returns the seconds until the next one, ``None`` if it takes a change of etcd."""
        try:
            await self._round()
        except Unavailable as error:  # the watch says so
            log.debug("the settings are not followed at present: %s", error)
            return _AGAIN
        except RegistryError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                log.warning("the settings are not followed, until this is put right: %s", error)
            return _AGAIN
        except Exception:
            log.exception("the settings could not be followed")
            return _RETRY
        self._trouble = ""
        return _RETRY if self._refused or self._unsaved is not None else None

    async def _round(self) -> None:
        if not self._watch.known:
            return
        await self._take_current()
        if self._unsaved is not None:
            await self._save(self._unsaved)
        await self._consider()

    # The revision in force

    async def _take_current(self) -> None:
        number = self._watch.current
        if number > self.revision:
            if number != self._refused or self._due():
                await self._take(number)
            return
        self._refused = 0
        self._behind = number if number < self.revision else 0
        if number < self.revision:
            self._said = None  # it may be gone as well
            await self._store.raise_last(self.revision)  # so that the next revision is newer than this one
        if self.revision:
            self._confirm(self.revision, self._fault)

    def _due(self) -> bool:
        """Whether to try again. Not beside another revision that is prepared: both may open the same things."""
        return self._candidate is None and asyncio.get_running_loop().time() >= self._retry

    async def _take(self, number: int) -> None:
        try:
            taken = await self._prepared(number)
        except NotPrepared as error:
            if (number, str(error)) != self._said:
                log.error("revision %d of the settings is in force and not taken: %s", number, error)
            self._refused = number
            self._retry = asyncio.get_running_loop().time() + _RETRY
            self._confirm(number, str(error))
            return
        self._candidate = None
        self._fault = taken.prepared.commit()
        self.config = taken.config
        self._refused = self._behind = 0
        log.info("revision %d of the settings is in force", number)
        if taken.present:
            await self._save(taken.revision)
        self._confirm(number, self._fault)

    async def _prepared(self, number: int) -> Candidate:
        """The revision in force, prepared: before its commit if this node took part in the vote. Raises
        ``NotPrepared``, ``RegistryError``."""
        if self._candidate is not None and self._candidate.number == number:
            return self._candidate
        self._withdraw()
        revision = await self._store.revision(number)
        if revision is None:
            raise NotPrepared(f"etcd does not have revision {number}, although it is in force")
        self._candidate = await self._candidate_of(revision)
        return self._candidate

    def _confirm(self, number: int, error: str) -> None:
        if (number, error) != self._said:
            self._said = (number, error)
            self._ballot.confirm(number, error, time.time())

    async def _save(self, revision: Revision) -> None:
        try:
            await asyncio.to_thread(keep, self.config.folder, revision, self.config.since)
        except OSError as error:
            if self._unsaved is None:
                log.error("revision %d of the settings is not on disk: %s", revision.number, error)
            self._unsaved, self._unsaved_error = revision, str(error)
        else:
            self._unsaved = None

    # The proposal

    async def _consider(self) -> None:
        number = self._watch.proposed
        candidate = self._candidate
        # A commit removes the proposal, too: then the next round takes what is prepared.
        if candidate is not None and candidate.number not in (number, self._watch.current):
            log.info("revision %d of the settings was withdrawn", candidate.number)
            self._withdraw()
        if not number or number == self._voted:
            return
        if number <= self.revision:
            self._vote(number, f"it follows revision {self.revision} already: etcd was set back; try again")
            return
        revision = await self._store.revision(number)
        if revision is None:
            return  # it was withdrawn meanwhile
        try:
            self._candidate = await self._candidate_of(revision)
        except NotPrepared as error:
            log.warning("revision %d of the settings is refused: %s", number, error)
            self._vote(number, str(error))
        else:
            self._vote(number, "")

    def _vote(self, number: int, error: str) -> None:
        self._voted = number
        self._ballot.vote(number, error)

    def _withdraw(self) -> None:
        candidate, self._candidate = self._candidate, None
        if candidate is not None:
            candidate.prepared.withdraw()

    async def _candidate_of(self, revision: Revision) -> Candidate:
        """Prepare a revision. Raises ``NotPrepared``."""
        try:
            # In a thread: settings of 1 MB take longer than a turn of the loop may.
            config = await asyncio.to_thread(revised, self.config, revision)
            if config is None:
                config = replace(self.config, revision=revision.number)
                return Candidate(revision, config, Prepared(), present=False)
            async with asyncio.timeout(_PREPARE):
                return Candidate(revision, config, await self._prepare(config), present=True)
        except TimeoutError:
            raise NotPrepared(f"it was not prepared within {_PREPARE:.0f} s") from None
        except OSError as error:
            raise NotPrepared(error.strerror or repr(error)) from error
        except ValueError as error:
            raise NotPrepared(str(error) or repr(error)) from error
        except Exception as error:
            log.exception("revision %d of the settings could not be prepared", revision.number)
            raise NotPrepared(f"a fault of the mesh: {error!r}") from error
