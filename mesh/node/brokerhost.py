"""A broker with its journal and the turns of the loop: edge and core both run one.

It knows how broker, journal and sockets are put together. What always holds: at the end of a turn the journal's buffer
goes to the commit thread before anything is written to a socket; work that waits for the journal continues when the
journal reports; while the disk fails or cannot keep up, nothing new is read from clients.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final, final

from mesh.broker.broker import Broker
from mesh.broker.claim import Ended, Ends, ignore
from mesh.broker.dispatcher import Forwarder
from mesh.broker.inbox import InboxRules
from mesh.broker.notices import Notices
from mesh.broker.settings import Settings
from mesh.broker.work import STEPS
from mesh.journal.errors import DamageError, JournalError
from mesh.journal.journal import Journal
from mesh.node.config import NodeConfig
from mesh.node.faults import Faults
from mesh.node.journals import JournalKeeper
from mesh.node.marks import JournalMarks
from mesh.node.services import Services
from mesh.node.status import BrokerHostStatus
from mesh.policy.access import Grants
from mesh.session.store import Item
from mesh.transport.turn import Turn
from mesh.transport.wheel import Wheel
from mesh.transport.writer import ConnectionWriter
from mesh.version import describe

_TICK: Final = 1.0
# Bytes that wait for a slow disk. Far below the journal's own limit, at which it raises: packets that clients have
# already sent still arrive.
_BACKLOG_HIGH: Final = 64 << 20
_BACKLOG_LOW: Final = 16 << 20
# Seconds that the loop's thread may hold the interpreter lock while the commit thread waits for it to report a sync.
# The default of 5 ms is as long as several syncs.
_SWITCH: Final = 0.0005
_LATE: Final = 0.01  # seconds until records are synced that no work waits for: a crash undoes at most this much

log = logging.getLogger(__name__)


@final
class BrokerHost:
    """Created by ``open_broker``. ``on_durable`` are called after the broker, with the journal's position."""

    def __init__(self, journal: Journal, broker: Broker, keeper: JournalKeeper | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._keeper = keeper
        self.journal = journal
        self.broker = broker
        self.turn = Turn(self._loop, self._commit, ConnectionWriter(broker))
        self.wheel = Wheel(self._loop)
        self.pressing: Callable[[], bool] = _never  # whether work outside the broker waits for the journal
        self._late: asyncio.TimerHandle | None = None
        self.on_durable: list[Callable[[int], None]] = []
        self.on_tick: list[Callable[[], None]] = []
        self.on_disk: Callable[[bool], None] = _ignore
        self.on_damage: Callable[[], None] = _end_process
        self.faults = Faults(_end_process)
        self._retry: asyncio.TimerHandle | None = None
        self._position = -1  # up to which the journal is durable
        self._told = -1  # up to which the listeners know it
        self._pushing_back = False
        self._ticker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow the journal and to tick."""
        sys.setswitchinterval(_SWITCH)
        self.journal.on_durable = self._durable
        self.journal.on_failure = self._failed
        self.journal.on_damage = self._damaged
        self._durable(self.journal.durable_position)
        self.wheel.start()
        self._ticker = self._loop.create_task(self._tick())

    def expel(self, ends: Ends, told: Ended = ignore) -> None:
        """Close the connections of the back ends for which ``ends`` gives a reason, in slices."""
        self.broker.expel(ends, told)
        self.turn.wake()

    def _commit(self) -> None:
        """Commit the journal's buffer: at once if work waits for it, else within ``_LATE`` seconds.

        No work waits for the record of a delivery. Syncing that at once would only make the next message wait for two
        syncs instead of one.
        """
        try:
            more = self.broker.end_turn()
        except Exception as error:  # noqa: BLE001 - logged there
            self._try_again(self.faults.failed(error))
        else:
            self.faults.succeeded()
            if more:
                self.turn.wake()
        self._tell()
        if self.journal.backlog_bytes > _BACKLOG_HIGH:
            self._push_back(f"{self.journal.backlog_bytes} bytes wait for the disk")
        if self.broker.outbox.waiting or self.pressing():
            self._commit_now()
        elif self._late is None:
            self._late = self._loop.call_later(_LATE, self._commit_now)

    def _try_again(self, pause: float) -> None:
        if self._retry is None:
            self._retry = self._loop.call_later(pause, self._end_pause)

    def _end_pause(self) -> None:
        self._retry = None
        self.turn.wake()

    def _commit_now(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        self.journal.commit()

    def _durable(self, position: int) -> None:
        self.broker.quotas.disk = self.journal.disk_bytes
        try:
            self.broker.durable(position)
        except Exception as error:  # noqa: BLE001 - logged there
            self._try_again(self.faults.failed(error))
        self._position = position
        self._tell()
        if self._pushing_back and self.journal.failed is None and self.journal.backlog_bytes < _BACKLOG_LOW:
            self._pushing_back = False
            log.warning("the journal is written again: clients are read")
            self.on_disk(True)
        self.turn.wake()

    def _tell(self) -> None:
        """Tell the listeners how far the journal is durable, when the broker has released all that waited for it: a
        front door may forget a packet only after the answer to it was sent."""
        if self._told < self._position and not self.broker.releasing:
            self._told = self._position
            for listener in self.on_durable:
                listener(self._told)

    def _failed(self, error: OSError) -> None:
        self._push_back(f"the journal cannot be written: {error}")

    def _damaged(self, error: DamageError) -> None:
        """End the process: what it would go on to do rests on a journal that is not what was written. All that was
        acknowledged is durable. The next start refuses the journal, so that the node stays down."""
        log.critical("the journal is damaged; this node ends, and stays down until it is salvaged: %s", error)
        self.on_damage()

    def _push_back(self, why: str) -> None:
        """Read no client until the disk has caught up: what cannot be stored must not be accepted."""
        if not self._pushing_back:
            self._pushing_back = True
            log.error("%s; no client is read until the journal can be written again", why)
            self.on_disk(False)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            for part in (self.broker.tick, self._log_quotas, *self.on_tick):
                try:
                    part()
                except Exception:
                    log.exception("a part of the tick failed; the other parts go on")
            self.turn.wake()

    def _log_quotas(self) -> None:
        for line in self.broker.quotas.take_lines():
            log.warning("%s", line)

    def status(self) -> BrokerHostStatus:
        """The status, for ``mesh status`` and metrics."""
        trouble = "" if self._keeper is None else self._keeper.trouble
        faults = self.faults
        return BrokerHostStatus(
            self.broker.status(), self.journal.status(), self.turn.status(), faults.total, faults.detail, trouble
        )

    async def stop(self) -> None:
        """End the turns; all accepted messages are on disk afterwards."""
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        self.turn.end()
        for timer in (self._late, self._retry):
            if timer is not None:
                timer.cancel()
        self.wheel.stop()
        if self._keeper is not None:
            await self._keeper.stop()
        self.journal.on_durable = _nothing
        await asyncio.to_thread(self.journal.close)


async def open_broker(
    config: NodeConfig, services: Services, settings: Settings, grants: Grants, forwarder: Forwarder | None,
    inbox: InboxRules | None,
) -> tuple[BrokerHost, list[Item]]:
    """The broker, recovered from its journal, and the journal's items that do not belong to the broker.

    Raises ``JournalError`` or ``OSError``, which name the file and the reason.
    """
    keeper = JournalKeeper(
        config.folder / "journal", JournalMarks(services.client, config.topology.mesh, config.name)
    )
    journal = await keeper.open()
    notices = Notices(log.warning, time.monotonic)
    try:
        broker = Broker(
            settings, journal, time.time, services.tracer, forwarder, inbox, config.vehicle_of(), notices, grants.of
        )
        broker.system.version = describe()
        other: list[Item] = []
        await recover(broker, journal.live(), other)
        if broker.persistence.lost:
            log.error("%d messages lack their body or their session and are dropped", broker.persistence.lost)
    except BaseException:
        await keeper.stop()
        try:
            await asyncio.to_thread(journal.close)  # else the next attempt would find it locked
        except JournalError as error:
            log.warning("the journal was not closed cleanly: %s", error)
        raise
    return BrokerHost(journal, broker, keeper), other


async def recover(broker: Broker, items: Iterable[Item], other: list[Item]) -> None:
    """Recover the broker, which takes minutes for a large journal. The loop runs meanwhile: those who watch this
    process see that it is alive."""
    steps = 0
    for done in broker.recovery(items, other):
        steps += done
        if steps >= STEPS:
            steps = 0
            await asyncio.sleep(0)


def _end_process() -> None:
    logging.shutdown()
    os._exit(1)


def _ignore(_writable: bool) -> None:
    """No listener is open yet."""


def _never() -> bool:
    return False


def _nothing(_position: int) -> None:
    """Nothing waits for the journal."""
