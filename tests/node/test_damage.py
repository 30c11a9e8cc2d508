"""A node that reads damage from its journal ends, and the next start refuses the journal."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from mesh.broker.broker import Broker
from mesh.broker.settings import Settings
from mesh.broker.trace import Tracer
from mesh.journal import DamageError, Journal, JournalLimits
from mesh.node.brokerhost import BrokerHost
from tests.support.waiting import until

LIMITS = JournalLimits(segment=256)


def test_damage_found_by_a_read_ends_the_node(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        journal = Journal.open(tmp_path, limits=LIMITS, notify=loop.call_soon_threadsafe)
        host = BrokerHost(journal, Broker(Settings(), journal, time.time, Tracer()))
        ended: list[bool] = []
        host.on_damage = lambda: ended.append(True)
        host.start()
        id = journal.append(99, 0, b"", b"x" * 200)
        journal.commit()
        await until(lambda: journal.durable_position == id)
        segment = next(path for path in tmp_path.glob("*.log") if b"x" * 200 in path.read_bytes())
        data = bytearray(segment.read_bytes())
        data[data.index(b"x" * 200) + 50] ^= 1
        segment.write_bytes(data)
        with pytest.raises(DamageError):
            journal.read(id)
        assert ended == [True]
        assert [record.levelname for record in caplog.records if "stays down" in record.getMessage()] == ["CRITICAL"]
        await host.stop()
        with pytest.raises(DamageError, match=f"item {id} is damaged"):
            Journal.open(tmp_path, limits=LIMITS, notify=loop.call_soon_threadsafe)

    asyncio.run(play())
