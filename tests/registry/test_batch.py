"""Merging and batching, without etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from mesh.registry.batch import LANES, Batcher
from mesh.registry.errors import Overloaded, Unavailable
from tests.support.waiting import until


class Server:
    """Answers every key with its upper case while it is open."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None
        self.running = 0
        self.most = 0

    async def send(self, batch: Sequence[tuple[str, int]], timeout: float) -> Mapping[str, str]:
        self.batches.append([key for key, _ in batch])
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.wait_for(self.open.wait(), timeout)
        except TimeoutError:
            raise Unavailable("too late") from None
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error
        return {key: key.upper() for key, _ in batch}


def batcher(server: Server, *, size: int = 10, deadline: float = 5.0, waiting: int = 1000) -> Batcher[int, str]:
    return Batcher("key", server.send, size=size, deadline=deadline, max_waiting=waiting)


def test_questions_of_one_turn_share_requests() -> None:
    async def main() -> None:
        server = Server()
        keys = [f"k{number}" for number in range(95)]
        batch = batcher(server)
        found = await asyncio.gather(*(batch.ask(key, 0) for key in keys))
        assert found == [key.upper() for key in keys]
        assert len(server.batches) == 10
        assert server.most <= LANES

    asyncio.run(main())


def test_concurrent_questions_about_one_key_are_merged() -> None:
    async def main() -> None:
        server = Server()
        batch = batcher(server)
        assert await asyncio.gather(*(batch.ask("same", 0) for _ in range(50))) == ["SAME"] * 50
        assert server.batches == [["same"]]
        assert "same" not in batch
        assert await batch.ask("same", 0) == "SAME"
        assert len(server.batches) == 2

    asyncio.run(main())


def test_cancelled_caller_does_not_affect_other_callers() -> None:
    async def main() -> None:
        server = Server()
        server.open.clear()
        batch = batcher(server)
        first, second = (asyncio.create_task(batch.ask("k", 0)) for _ in range(2))
        await until(lambda: server.running, "the request is sent")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        server.open.set()
        assert await second == "K"

    asyncio.run(main())


def test_questions_fail_by_their_deadline_without_an_answer() -> None:
    async def main() -> None:
        server = Server()
        server.open.clear()
        batch = batcher(server, deadline=0.2)
        found = await asyncio.gather(*(batch.ask(f"k{n}", 0) for n in range(500)), return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in found)
        asked = [key for sent in server.batches for key in sent]
        assert len(asked) == len(set(asked)), "failed questions are not asked again"
        server.open.set()
        assert await batch.ask("again", 0) == "AGAIN"

    asyncio.run(main())


def test_fault_reaches_the_caller_and_later_questions_work() -> None:
    async def main() -> None:
        server = Server()
        batch = batcher(server)
        server.error = ZeroDivisionError("a fault")
        with pytest.raises(ZeroDivisionError):
            await batch.ask("k", 0)
        server.error = None
        assert await batch.ask("k", 0) == "K"

    asyncio.run(main())


def test_questions_above_the_limit_are_refused_at_once() -> None:
    async def main() -> None:
        server = Server()
        server.open.clear()
        batch = batcher(server, waiting=20)
        tasks = [asyncio.create_task(batch.ask(f"k{n}", 0)) for n in range(20)]
        await until(lambda: server.running, "the requests are sent")
        with pytest.raises(Overloaded, match="20 questions"):
            await batch.ask("one more", 0)
        merged = asyncio.create_task(batch.ask("k3", 0))
        server.open.set()
        assert await asyncio.gather(*tasks) == [f"K{n}" for n in range(20)]
        assert await merged == "K3"

    asyncio.run(main())


def test_close_fails_all_pending_questions() -> None:
    async def main() -> None:
        server = Server()
        server.open.clear()
        batch = batcher(server)
        tasks = [asyncio.create_task(batch.ask(f"k{n}", 0)) for n in range(100)]
        await until(lambda: server.running == LANES, "the lanes are full")
        await batch.close()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in found)
        with pytest.raises(Unavailable, match="closed"):
            await batch.ask("late", 0)

    asyncio.run(main())


def test_question_right_after_the_last_answer_is_sent() -> None:
    """Each answer asks the next question in the same turn in which the lanes end."""

    async def main() -> None:
        server = Server()
        batch = batcher(server, size=1)

        async def chain(name: str) -> None:
            for number in range(50):
                await asyncio.wait_for(batch.ask(f"{name}{number}", 0), 5.0)

        await asyncio.gather(*(chain(name) for name in "abcdefgh"))

    asyncio.run(main())
