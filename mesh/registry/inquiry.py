"""Questions to all nodes through etcd: what a command asks, and what each node answers.

It knows keys and leases. It must never know what is asked for. What always holds:

- A question and its answers are under one lease of the command, so that a command that is killed leaves nothing behind.
- A node answers each question; after an interruption of its watch it may do so again, at the same key. It does nothing
  for this while there is no question.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, final

from mesh.registry import etcd_pb2 as pb
from mesh.registry.client import EtcdClient
from mesh.registry.errors import RegistryError
from mesh.registry.keys import Keys, after
from mesh.registry.tasks import end
from mesh.registry.watch import Watch

log = logging.getLogger("mesh.registry.inquiry")

TTL: Final = 15
"""Seconds that a question lives after its command was killed."""

_MOST: Final = 64  # questions that wait for an answer; more are not answered
_POLL: Final = 0.05

Answer = Mapping[str, Any]


@final
class Inquiries:
    """Answers the questions to one node. ``answer`` is called on the loop; its result is sent as JSON."""

    def __init__(self, client: EtcdClient, mesh: str, node: str, answer: Callable[[], Answer]) -> None:
        self._client = client
        self._keys = Keys(mesh)
        self._node = node
        self._answer = answer
        self._watch = Watch(client, self._keys.asked, self, end=after(self._keys.asked))
        self._open: list[pb.KeyValue] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, and do not wait for etcd. Raises RegistryError if waiting cannot help (wrong password)."""
        self._task = asyncio.create_task(self._run(), name="inquiries")
        await self._watch.start(0.0)

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await end(task)
        await self._watch.stop()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._open:
                question = self._open.pop(0)
                try:
                    value = json.dumps(self._answer()).encode()
                    await self._client.put(self._keys.answer(question.key, self._node), value, lease=question.lease)
                except RegistryError as error:  # the command may have ended
                    log.debug("a question was not answered: %s", error)
                except Exception:
                    log.exception("a question could not be answered")

    # The follower of the watch

    def begin(self, revision: int, since: int) -> None:
        self._open.clear()

    def page(self, entries: Sequence[pb.KeyValue]) -> bool:
        for entry in entries:
            self._note(entry)
        return True

    def end(self) -> Iterator[None]:
        yield from ()

    def apply(self, events: Sequence[pb.Event]) -> None:
        for event in events:
            if event.type != pb.Event.DELETE:
                self._note(event.kv)

    def _note(self, entry: pb.KeyValue) -> None:
        if len(self._open) >= _MOST:
            log.warning("a question is not answered: %d others wait already", _MOST)
            return
        self._open.append(entry)
        self._wake.set()


async def inquire(client: EtcdClient, mesh: str, nodes: set[str], wait: float) -> dict[str, Answer]:
    """The answers of ``nodes``; those that do not answer within ``wait`` seconds are missing. Raises RegistryError."""
    keys = Keys(mesh)
    lease, _ = await client.grant(TTL)
    try:
        question = keys.asked + secrets.token_hex(8).encode()
        await client.put(question, b"{}", lease=lease)
        prefix = keys.answer(question, "")
        found: dict[str, Answer] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while nodes - set(found):
                    await asyncio.sleep(_POLL)
                    found = await _answers(client, prefix)
        return found
    finally:
        with contextlib.suppress(RegistryError):
            await client.revoke(lease)


async def _answers(client: EtcdClient, prefix: bytes) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    async for page in client.pages(prefix):
        for entry in page.kvs:
            found[entry.key[len(prefix) :].decode(errors="replace")] = json.loads(entry.value)
    return found
