"""Batches questions about single keys: merges equal ones and sends many in one request.

A fleet that reconnects asks for a hundred thousand keys within seconds. Questions of one turn of the loop share
requests; a key with a pending question is not asked again; at most ``LANES`` requests run at a time. It knows keys,
answers and deadlines. It must never know their meaning.

What always holds: every question is answered or fails by its deadline, even if etcd does not answer; a caller that is
cancelled does not affect other callers that wait for the same key.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from mesh.registry.errors import Overloaded, Unavailable
from mesh.registry.tasks import end

Question = TypeVar("Question")
Answer = TypeVar("Answer")

LANES: Final = 4
"""Requests that run at a time: enough to hide the round trip to etcd, few enough that a storm fills the batches."""

MAX_WAITING: Final = 100_000
"""Keys that may wait: as many as etcd answers within the deadline; some 50 MB at most."""

DEADLINE: Final = 3.0
"""Seconds until a question fails. A refused vehicle connects again; a waiting one holds a socket."""


class PendingLookup(Generic[Question, Answer]):
    """One question, and the future that all its callers wait for."""

    __slots__ = ("deadline", "future", "key", "question")

    def __init__(self, key: str, question: Question, future: asyncio.Future[Answer], deadline: float) -> None:
        self.key = key
        self.question = question
        self.future = future
        self.deadline = deadline


Send = Callable[[Sequence[tuple[str, Question]], float], Awaitable[Mapping[str, Answer]]]
"""Sends several questions with a timeout in seconds; returns an answer for each key, or raises RegistryError."""


class Batcher(Generic[Question, Answer]):
    """Merges questions and sends them in batches with ``send``."""

    __slots__ = ("_closed", "_deadline", "_keys", "_lanes", "_max_waiting", "_queue", "_send", "_size", "_what")

    def __init__(
        self,
        what: str,
        send: Send[Question, Answer],
        *,
        size: int,
        deadline: float = DEADLINE,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """``what`` names the questions in errors. ``size``: keys in one request."""
        self._what = what
        self._send = send
        self._size = size
        self._deadline = deadline
        self._max_waiting = max_waiting
        self._keys: dict[str, PendingLookup[Question, Answer]] = {}
        self._queue: deque[PendingLookup[Question, Answer]] = deque()
        self._lanes: set[asyncio.Task[None]] = set()
        self._closed = False

    def __contains__(self, key: str) -> bool:
        """Whether a question about this key is pending."""
        return key in self._keys

    async def ask(self, key: str, question: Question) -> Answer:
        """The answer for ``key``. If a question about it is pending, ``question`` is not sent: all callers get the
        answer to the first one.

        Raises Unavailable at the deadline, Overloaded when too many wait, and what ``send`` raised."""
        waiting = self._keys.get(key)
        if waiting is None:
            waiting = self._enqueue(key, question)
        return await asyncio.shield(waiting.future)

    async def close(self) -> None:
        """End the running requests; all pending questions fail with Unavailable."""
        self._closed = True
        await end(*self._lanes)
        for waiting in list(self._keys.values()):
            self._fail(waiting, Unavailable(f"{self._what} {waiting.key!r}: the map is closed"))
        self._queue.clear()

    def _enqueue(self, key: str, question: Question) -> PendingLookup[Question, Answer]:
        if self._closed:
            raise Unavailable(f"{self._what} {key!r}: the map is closed")
        if len(self._keys) >= self._max_waiting:
            raise Overloaded(f"{self._what} {key!r}: {self._max_waiting} questions already wait for etcd")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        # All callers may be cancelled before it fails.
        future.add_done_callback(_retrieve_exception)
        waiting = PendingLookup(key, question, future, loop.time() + self._deadline)
        self._keys[key] = waiting
        self._queue.append(waiting)
        if len(self._lanes) < LANES and len(self._queue) % self._size == 1 % self._size:
            # A new task starts in the next turn of the loop, so it sends all questions of this turn.
            self._lanes.add(asyncio.create_task(self._lane(), name=f"etcd {self._what}"))
        return waiting

    async def _lane(self) -> None:
        lane = asyncio.current_task()
        assert lane is not None
        try:
            while self._queue:
                batch = self._take()
                if batch:
                    await self._exchange(batch)
        finally:
            # In the same turn in which the queue is found empty: a later question must see that it needs a lane.
            self._lanes.discard(lane)

    async def _exchange(self, batch: list[PendingLookup[Question, Answer]]) -> None:
        left = batch[0].deadline - asyncio.get_running_loop().time()
        try:
            answers = await self._send([(waiting.key, waiting.question) for waiting in batch], left)
            for waiting in batch:
                self._finish(waiting, answers[waiting.key])
        except Exception as error:  # noqa: BLE001
            # The callers get every error, also a fault of the program; the lane goes on with other questions.
            for waiting in batch:
                self._fail(waiting, error)

    def _take(self) -> list[PendingLookup[Question, Answer]]:
        """The next batch, oldest first; questions past their deadline fail here."""
        now = asyncio.get_running_loop().time()
        batch: list[PendingLookup[Question, Answer]] = []
        while self._queue and len(batch) < self._size:
            waiting = self._queue.popleft()
            if waiting.deadline <= now:
                self._fail(
                    waiting, Unavailable(f"{self._what} {waiting.key!r}: etcd did not answer in {self._deadline} s")
                )
            else:
                batch.append(waiting)
        return batch

    def _finish(self, waiting: PendingLookup[Question, Answer], answer: Answer) -> None:
        self._keys.pop(waiting.key, None)
        if not waiting.future.done():
            waiting.future.set_result(answer)

    def _fail(self, waiting: PendingLookup[Question, Answer], error: Exception) -> None:
        self._keys.pop(waiting.key, None)
        if not waiting.future.done():
            waiting.future.set_exception(error)


def _retrieve_exception(future: asyncio.Future[Answer]) -> None:
    if not future.cancelled():
        future.exception()
