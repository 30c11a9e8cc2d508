"""Handshakes that are begun and left, CONNECTs that trickle, and a flood of CONNECTs, all at once.

Beside them new vehicles come, which must get in: a silent connection is one of those that make room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final, final

from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5
from tests.attacks.attack import Attack
from tests.attacks.raw import Address, Raw, hello

EACH: Final = 2000
SECONDS: Final = 15.0
NEWCOMER: Final = 5.0  # seconds in which a new vehicle gets in
_PERIOD: Final = 0.5
_FLOOD: Final = 200  # CONNECTs a second
# The beginning of a ClientHello of TLS 1.2, whose rest does not come.
_HELLO: Final = bytes.fromhex("16030102000100 01fc0303".replace(" ", "")) + bytes(100)


@final
class UnknownClients(Attack):
    about: ClassVar[str] = (
        f"{EACH:,} TLS handshakes that are begun and left, {EACH:,} CONNECTs of one byte each {_PERIOD:g} s,"
        f" {_FLOOD} CONNECTs a second, and ten new vehicles beside them; for {SECONDS:g} s"
    )

    async def run(self) -> None:
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            parts = [
                tasks.create_task(self._hold(self._begin_handshake, b"", ended)),
                tasks.create_task(self._hold(self._silent, encode(hello("x" * 60), MQTT5), ended)),
                tasks.create_task(self._flood(ended)),
            ]
            await asyncio.sleep(SECONDS * self.size / 2)
            await self._newcomers()
            await asyncio.sleep(SECONDS * self.size / 2)
            ended.set()
            await asyncio.gather(*parts)

    async def _begin_handshake(self, _: int) -> Raw:
        raw = await Raw.dial(self._secured())
        raw.say(_HELLO)
        return raw

    async def _silent(self, _: int) -> Raw:
        return await Raw.dial(self.target.door)

    async def _hold(self, join: Callable[[int], Awaitable[Raw]], data: bytes, ended: asyncio.Event) -> None:
        """Hold connections, and send a byte of ``data`` on each now and then."""
        async with self.crowd(self.full(EACH), join) as crowd:
            at = 0
            while not ended.is_set():
                for raw in crowd:
                    raw.say(data[at : at + 1])
                at += 1
                await asyncio.sleep(_PERIOD)

    async def _flood(self, ended: asyncio.Event) -> None:
        number = 0
        while not ended.is_set():
            number += 1
            raw = await self.vehicle(f"flood-{number % 10}")
            raw.abort()
            await asyncio.sleep(1 / _FLOOD)
        self.count("CONNECTs of the flood", number)

    async def _newcomers(self) -> None:
        """New vehicles, with TLS and without."""
        for number in range(10):
            async with asyncio.timeout(NEWCOMER):
                async with await Raw.dial(self.target.door) as raw:
                    answer = await raw.connect(f"newcomer-{number}", f"newcomer-{number}")
            assert answer is not None, "a new vehicle got no answer"
            assert answer.reason == 0, f"a new vehicle was refused with 0x{answer.reason:02X}"
            self.count("new vehicles that got in")

    def _secured(self) -> Address:
        """The listener with TLS, or the plain one of a mesh that has none."""
        return self.target.secured or self.target.door
