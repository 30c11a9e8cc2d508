"""Slots that sources share fairly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mesh.policy.fairslots import FairSlots
from tests.support.loop import run


class Work:
    """Tasks that want a slot, and the order in which they got one."""

    def __init__(self, parallel: int = 1) -> None:
        self.slots = FairSlots(parallel)
        self.begun: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def want(self, *names: str) -> None:
        """``a1`` is of source ``a``; a capital letter is trusted."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self._work(name))
            await asyncio.sleep(0)

    async def _work(self, name: str) -> None:
        await self.slots.acquire(name[0].lower(), name[0].isupper())
        self.begun.append(name)

    async def end(self, count: int = 1) -> None:
        for _ in range(count):
            self.slots.release()
            await asyncio.sleep(0)


def with_work(main: Callable[[Work], Awaitable[None]], parallel: int = 1) -> None:
    async def scenario() -> None:
        await main(Work(parallel))

    run(scenario())


def test_sources_begin_in_turn_and_each_one_in_its_order() -> None:
    async def main(work: Work) -> None:
        await work.want("a1", "a2", "a3", "a4", "b1", "b2", "c1")
        assert (work.begun, work.slots.waiting) == (["a1"], 6)
        await work.end(6)
        assert (work.begun, work.slots.waiting) == (["a1", "a2", "b1", "c1", "a3", "b2", "a4"], 0)

    with_work(main)


def test_trusted_ones_begin_first() -> None:
    async def main(work: Work) -> None:
        await work.want("a1", "a2", "b1", "A3", "A4", "B2")
        await work.end(5)
        assert work.begun == ["a1", "A3", "B2", "A4", "a2", "b1"]

    with_work(main)


def test_as_many_work_as_there_are_slots() -> None:
    async def main(work: Work) -> None:
        await work.want("a1", "b1", "b2")
        assert (work.begun, work.slots.waiting) == (["a1", "b1"], 1)
        await work.end(3)
        await work.want("c1", "c2", "c3")
        assert work.begun == ["a1", "b1", "b2", "c1", "c2"]

    with_work(main, 2)


@pytest.mark.parametrize(
    ("waiting", "one_more", "most"),
    [
        ((), "a", 0),
        (("a1", "a2"), "a", 2),
        (("a1", "a2", "a3"), "b", 1),
        (("a1", "a2", "b1"), "b", 3),
        (("a1", "b1", "c1"), "d", 3),
        (("a1", "A2", "B3"), "c", 3),
        (("a1", "a2", "A3"), "B", 1),
    ],
)
def test_how_many_begin_before_one_more(waiting: tuple[str, ...], one_more: str, most: int) -> None:
    async def main(work: Work) -> None:
        await work.want("z0", *waiting)
        assert work.slots.ahead(one_more.lower(), one_more.isupper()) == most
        await work.want(f"{one_more}9")
        await work.end(len(waiting) + 1)
        assert work.begun.index(f"{one_more}9") <= most + 1

    with_work(main)


def test_one_that_leaves_takes_no_slot() -> None:
    async def main(work: Work) -> None:
        await work.want("a1", "a2", "b1", "A3")
        for name in ("a2", "A3"):
            work.tasks[name].cancel()
        work.slots.release()  # before those that leave have noticed it
        await asyncio.gather(*work.tasks.values(), return_exceptions=True)
        assert (work.begun, work.slots.waiting) == (["a1", "b1"], 0)
        await work.end()
        await work.want("c1")
        assert work.begun[-1] == "c1"

    with_work(main)


def test_one_that_leaves_when_it_gets_its_slot_gives_it_on() -> None:
    async def main(work: Work) -> None:
        await work.want("a1", "a2", "b1")
        work.slots.release()
        work.tasks["a2"].cancel()
        await asyncio.gather(*work.tasks.values(), return_exceptions=True)
        assert (work.begun, work.slots.waiting) == (["a1", "b1"], 0)

    with_work(main)


def test_sources_that_are_gone_leave_nothing() -> None:
    async def main(work: Work) -> None:
        await work.want("z0", *(f"{letter}1" for letter in "abcdefgh"))
        for name in list(work.tasks)[1:5]:
            work.tasks[name].cancel()
        await asyncio.sleep(0)
        await work.end(9)
        assert (work.slots.waiting, work.slots._others.keys) == (0, 0)

    with_work(main)
