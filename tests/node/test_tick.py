"""The tick of a node with a broker: an error in one part does not stop the others."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from mesh.broker.broker import Broker
from mesh.broker.settings import Settings
from mesh.broker.trace import Tracer
from mesh.journal import Journal
from mesh.node.brokerhost import BrokerHost
from tests.support.waiting import until


def test_an_error_in_one_part_of_the_tick_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mesh.node.brokerhost._TICK", 0.01)

    async def play() -> None:
        loop = asyncio.get_running_loop()
        journal = Journal.open(tmp_path, notify=loop.call_soon_threadsafe)
        host = BrokerHost(journal, Broker(Settings(), journal, time.time, Tracer()))
        ticks: list[int] = []

        def fail() -> None:
            raise ValueError("a fault")

        host.on_tick += [fail, lambda: ticks.append(1)]
        host.start()
        await until(lambda: len(ticks) == 2)
        await host.stop()
        assert "a fault" in caplog.text

    asyncio.run(play())
