"""Turns and deadlines."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import cast

import pytest

from mesh.broker.notices import BURST, Notices
from mesh.broker.shell import Flushable
from mesh.transport.turn import WIDTH, Turn
from mesh.transport.wheel import PORTION, SLOTS, TICK, Timed, Wheel
from tests.support.loop import run
from tests.support.waiting import until


class Recorder(Flushable):
    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self.events = events

    def flush(self) -> None:
        self.events.append(self.name)


def test_a_turn_ends_once_with_its_steps_first_and_in_order() -> None:
    async def main() -> None:
        events: list[str] = []
        turn = Turn(asyncio.get_running_loop(), lambda: events.append("commit"))
        turn.add(lambda: events.append("broker"))
        turn.mark(Recorder("a", events))
        turn.wake()
        turn.mark(Recorder("b", events))
        assert events == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert events == ["commit", "broker", "a", "b"]

    run(main())


def test_turn_ends_after_width_steps() -> None:
    async def main() -> None:
        events: list[str] = []
        turn = Turn(asyncio.get_running_loop(), lambda: events.append("commit"))
        for number in range(3 * WIDTH):
            turn.mark(Recorder(str(number), events))
            turn.step()
            assert len(events) == (number + 1) // WIDTH * (WIDTH + 1)
        await asyncio.sleep(0)
        assert events[3 * (WIDTH + 1) :] == ["commit"]  # the end that was already scheduled

    run(main())


def test_failed_step_or_flush_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        events: list[str] = []

        def broken() -> None:
            raise ValueError("broken")

        class Broken(Flushable):
            def flush(self) -> None:
                broken()

        turn = Turn(asyncio.get_running_loop(), broken, lambda: events.append("step"))
        turn.mark(Broken())
        turn.mark(Recorder("a", events))
        turn.end()
        assert events == ["step", "a"]
        assert caplog.text.count("ValueError: broken") == 2

    run(main())


def test_mark_of_a_step_is_flushed_this_turn_mark_of_a_flush_next_turn() -> None:
    async def main() -> None:
        events: list[str] = []
        turn = Turn(asyncio.get_running_loop())
        late = Recorder("late", events)

        class Marking(Flushable):
            def flush(self) -> None:
                events.append("flush")
                turn.mark(late)

        turn.add(lambda: turn.mark(Marking()) if not events else None)
        turn.end()
        assert events == ["flush"]
        await until(lambda: events == ["flush", "late"])

    run(main())


class Entry(Timed):
    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def expired(self) -> None:
        self.times += 1


def wheel_of() -> Wheel:
    return Wheel(asyncio.new_event_loop())


@pytest.mark.parametrize("ticks", [1, 2, 3, SLOTS - 2, SLOTS - 1, SLOTS, SLOTS + 1, 5 * SLOTS + 3])
def test_an_entry_expires_once_late_by_two_ticks_at_most(ticks: int) -> None:
    wheel, entry = wheel_of(), Entry()
    wheel.watch(entry, ticks * TICK)
    for _ in range(ticks):
        wheel.tick()
    assert entry.times == 0
    wheel.tick()
    wheel.tick()
    assert entry.times == 1
    for _ in range(2 * SLOTS):
        wheel.tick()
    assert entry.times == 1


def test_heard_entry_does_not_expire_and_forgotten_entry_is_removed() -> None:
    wheel, heard, forgotten = wheel_of(), Entry(), Entry()
    wheel.watch(heard, 3 * TICK)
    wheel.watch(forgotten, 3 * TICK)
    wheel.forget(forgotten)
    wheel.forget(forgotten)
    for _ in range(20):
        wheel.tick()
        heard.heard = wheel.now
    assert heard.times == forgotten.times == 0
    wheel.watch(heard, 0)
    assert all(not slot for slot in wheel._slots)


def test_an_entry_that_fails_does_not_stop_the_wheel(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Timed):
        def expired(self) -> None:
            raise ValueError("broken")

    wheel, entry = wheel_of(), Entry()
    wheel.watch(Failing(), TICK)
    wheel.watch(entry, TICK)
    for _ in range(3):
        wheel.tick()
    assert entry.times == 1
    assert "ValueError: broken" in caplog.text


def test_entries_that_expire_together_are_checked_in_portions() -> None:
    wheel = wheel_of()
    entries = [Entry() for _ in range(3 * PORTION)]
    for entry in entries:
        wheel.watch(entry, TICK)
    for _ in range(2):
        wheel.tick()
    assert sum(entry.times for entry in entries) == PORTION
    wheel.forget(next(entry for entry in entries if not entry.times))
    while wheel.check():
        pass
    assert sum(entry.times for entry in entries) == 3 * PORTION - 1


def test_the_wheel_checks_all_that_expire_together_by_itself() -> None:
    async def main() -> None:
        wheel = Wheel(asyncio.get_running_loop())
        entries = [Entry() for _ in range(3 * PORTION)]
        for entry in entries:
            wheel.watch(entry, TICK)
        wheel.start()
        await until(lambda: all(entry.times for entry in entries))
        wheel.stop()

    run(main())


class Clocks:
    """A loop of which only the clocks are used. ``begun`` is when its present iteration began, ``now`` the time, and
    ``spent`` the thread's processor time, all in seconds."""

    def __init__(self) -> None:
        self.begun = self.now = self.spent = 100.0

    def time(self) -> float:
        return self.begun

    def turn(self) -> Turn:
        loop = cast(asyncio.AbstractEventLoop, self)
        return Turn(loop, clock=lambda: self.now, processor=lambda: self.spent)

    def work(self, seconds: float, idle: float = 0.0, preempted: float = 0.0) -> None:
        """An iteration after ``idle`` seconds without work; others had the processor for ``preempted`` seconds."""
        self.begun = self.now + idle
        self.now = self.begun + seconds + preempted
        self.spent += seconds


def test_a_turn_is_as_long_as_its_processor_time() -> None:
    clocks = Clocks()
    turn = clocks.turn()
    for seconds, idle, preempted in ((0.25, 5, 0), (0.001, 9, 0), (0.5, 0, 2), (0.125, 0, 1), (0.0, 0, 3)):
        clocks.work(seconds, idle, preempted)
        turn.end()
    status = turn.status()
    assert status.longest == pytest.approx(0.5)
    assert status.spent.count == 5
    assert status.spent.total == pytest.approx(0.876)


def test_short_turns_before_a_long_one_do_not_count_for_it() -> None:
    clocks = Clocks()
    turn = clocks.turn()
    for _ in range(1000):
        clocks.work(0.01)
        turn.end()
    clocks.work(0.2, preempted=5)
    turn.end()
    assert turn.status().longest == pytest.approx(0.2)


def test_a_long_turn_has_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clocks = Clocks()
    turn = clocks.turn()
    clocks.work(0.04, preempted=1)
    turn.end()
    assert caplog.text == ""
    clocks.work(0.25)
    turn.end()
    assert "a turn of the loop took 250 ms of processor time" in caplog.text


def test_reads_of_many_packets_end_a_turn_sooner() -> None:
    async def main() -> None:
        events: list[str] = []
        turn = Turn(asyncio.get_running_loop(), lambda: events.append("end"))
        turn.step(32 * WIDTH)
        assert events == ["end"]
        for _ in range(WIDTH - 1):
            turn.step(10)
            turn.relayed(10)
        assert events == ["end"]
        turn.step()
        assert events == ["end"] * 2
        turn.relayed(32 * WIDTH)
        assert events == ["end"] * 3

    run(main())


def test_the_wheel_runs_by_itself() -> None:
    async def main() -> None:
        wheel = Wheel(asyncio.get_running_loop())
        wheel.start()
        wheel.start()
        await until(lambda: wheel.now >= 1)
        wheel.stop()

    run(main())


def test_log_lines_caused_by_clients_are_limited(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices(logging.getLogger("test").warning, time.monotonic)
    for n in range(1000):
        notices.warn("door", "line %d", n)
    assert len(caplog.records) <= 3 * BURST  # the second may have changed once or twice during the loop
    notices._seen["door"][0] -= 1
    notices.warn("door", "later")
    assert "more suppressed" in caplog.text
    assert caplog.records[-1].getMessage() == "later"
