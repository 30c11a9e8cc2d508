"""The recovery of a large journal lets the loop run."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mesh.broker.broker import Broker
from mesh.broker.settings import Settings
from mesh.broker.trace import Tracer
from mesh.broker.work import STEPS
from mesh.journal.errors import LockedError
from mesh.journal.journal import Journal
from mesh.node import brokerhost, journals
from mesh.session.message import message_of
from mesh.session.store import Item
from mesh.wire.packets import Publish
from tests.support.bench import Bench, subscribe
from tests.support.loop import run
from tests.support.waiting import until

COUNT = 20_000


def test_the_loop_runs_during_recovery() -> None:
    settings = Settings()
    settings.max_queue_messages, settings.system_interval = COUNT, 0.0
    mesh = Bench(settings)
    client = mesh.client("c", expiry=100)
    subscribe(client, "t")
    client.lose()
    for _ in range(COUNT):
        mesh.broker.dispatcher.route(message_of(Publish("t", b"x", 1, False), mesh.clock(), False), None, None)
    mesh.turn()

    async def main() -> None:
        iterations = 0
        other: list[Item] = []
        broker = Broker(settings, mesh.store, mesh.clock, Tracer())
        recovery = asyncio.ensure_future(brokerhost.recover(broker, mesh.store.live(), other))
        while not recovery.done():
            iterations += 1
            await asyncio.sleep(0)
        assert iterations >= 4 * COUNT // STEPS
        assert broker.persistence.depth.messages == COUNT

    run(main())


def test_a_cancelled_start_leaves_no_lock(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        opening = asyncio.ensure_future(journals.open_in_thread(tmp_path, loop, None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        assert opening.cancelled()
        opened: list[Journal] = []

        def again() -> bool:
            try:
                opened.append(Journal.open(tmp_path, notify=loop.call_soon_threadsafe))
            except LockedError:
                return False
            return True

        await until(again)
        await asyncio.to_thread(opened[0].close)

    run(main())
