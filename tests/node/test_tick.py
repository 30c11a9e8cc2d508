"""The tick and the turns of a node with a broker: an error in one part does not stop the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.broker.broker import Broker
from mesh.broker.settings import Settings
from mesh.broker.trace import Tracer
from mesh.broker.work import STEPS
from mesh.journal import Journal
from mesh.node.brokerhost import BrokerHost
from mesh.node.faults import FIRST, GIVE_UP, LONGEST, Faults
from tests.fakes.clock import FakeClock
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
        await until(lambda: len(ticks) >= 2)
        await host.stop()
        assert "a fault" in caplog.text

    asyncio.run(play())


def test_work_that_fails_in_each_turn_does_not_keep_the_loop_busy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def play() -> None:
        loop = asyncio.get_running_loop()
        journal = Journal.open(tmp_path, notify=loop.call_soon_threadsafe)
        broker = Broker(Settings(), journal, time.time, Tracer())
        host = BrokerHost(journal, broker)
        failing = True

        def job() -> Iterator[int]:
            yield STEPS
            if failing:
                broker.work.start(job())
                raise ValueError("a fault")

        host.start()
        broker.work.start(job())
        host.turn.wake()
        await until(lambda: host.status().faults > 0)
        for _ in range(200):
            await asyncio.sleep(0)
        assert host.status().faults < 15
        assert "fails in each turn: ExceptionGroup" in host.status().detail
        failing = False
        await until(lambda: host.status().detail == "")
        assert "succeeds again" in caplog.text
        assert caplog.text.count("a part of the broker's work failed;") < 5
        await host.stop()

    asyncio.run(play())


def test_the_pause_after_a_fault_doubles_and_the_process_ends_if_none_helps(caplog: pytest.LogCaptureFixture) -> None:
    clock, ended = FakeClock(), list[bool]()
    faults = Faults(lambda: ended.append(True), clock)

    def fail() -> float:
        try:
            raise ValueError("a fault")
        except ValueError as error:
            return faults.failed(error)

    pauses = [fail() for _ in range(9)]
    assert pauses == [0.01 * 2**n for n in range(7)] + [LONGEST, LONGEST]
    assert len(caplog.records) == 1
    assert "ValueError: a fault" in caplog.text
    clock.now += GIVE_UP - 1
    faults.succeeded()
    assert fail() == FIRST
    clock.now += GIVE_UP - 1
    fail()
    assert ended == []
    clock.now += 1
    fail()
    assert ended == [True]
    assert "this process ends" in caplog.text
