"""Handshakes that are begun and left, CONNECTs that trickle, and a flood of CONNECTs, all at once.

Beside them new vehicles come, with TLS and without, which must get in. Half of the attackers have one address, the
others a network each; the new vehicles have another one. Half of the handshakes are left after a part of the
ClientHello, the others after all of it, with a key of the server that is dear.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import ClassVar, Final, final

from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5
from tests.attacks.attack import Attack
from tests.attacks.raw import Address, Raw, hello

EACH: Final = 2000
SECONDS: Final = 15.0
NEWCOMER: Final = 5.0  # seconds in which a new vehicle gets in
_NEW: Final = 20  # new vehicles, one after another; every second one has TLS
_PERIOD: Final = 0.5
_FLOOD: Final = 200  # CONNECTs a second
_ALONE: Final = "127.66.0.1"


@final
class UnknownClients(Attack):
    about: ClassVar[str] = (
        f"{EACH:,} TLS handshakes that are begun and left, {EACH:,} CONNECTs of one byte each {_PERIOD:g} s,"
        f" {_FLOOD} CONNECTs a second, and {_NEW} new vehicles beside them; for {SECONDS:g} s"
    )

    async def run(self) -> None:
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            parts = [
                tasks.create_task(self._hold(self._begin_handshake, b"", ended)),
                tasks.create_task(self._hold(self._silent, encode(hello("x" * 60), MQTT5), ended)),
                tasks.create_task(self._flood(ended)),
                tasks.create_task(self._newcomers(SECONDS * self.size)),
            ]
            await parts.pop()
            ended.set()
            await asyncio.gather(*parts)

    async def _begin_handshake(self, number: int) -> Raw:
        raw = await Raw.dial(self._secured(), own=_address(number))
        whole = client_hello()
        raw.say(whole if number // 2 % 2 else whole[: len(whole) // 2])
        return raw

    async def _silent(self, number: int) -> Raw:
        return await Raw.dial(self.target.door, own=_address(number))

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

    async def _newcomers(self, seconds: float) -> None:
        """New vehicles, spread over the attack."""
        secured = ssl.create_default_context()
        secured.check_hostname, secured.verify_mode = False, ssl.CERT_NONE  # the mesh is not what is attacked here
        for number in range(_NEW):
            with_tls = number % 2 == 1 and self.target.secured is not None
            began = time.monotonic()
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(NEWCOMER):
                    to, tls = (self._secured(), secured) if with_tls else (self.target.door, None)
                    async with await Raw.dial(to, own="127.77.0.1", tls=tls) as raw:
                        answer = await raw.connect(f"newcomer-{number}", f"newcomer-{number}")
                        self.count("new vehicles that got in", answer is not None and answer.reason == 0)
            took = round(1000 * (time.monotonic() - began))
            what = f"ms for the slowest of them {'with' if with_tls else 'without'} TLS"
            self.seen[what] = max(self.seen.get(what, 0), took)
            await asyncio.sleep(seconds / _NEW)
        late = _NEW - self.seen["new vehicles that got in"]
        assert not late, f"{late} new vehicles did not get in within {NEWCOMER:g} s"

    def _secured(self) -> Address:
        """The listener with TLS, or the plain one of a mesh that has none."""
        return self.target.secured or self.target.door


def _address(number: int) -> str:
    """One address, or another network for each."""
    return _ALONE if number % 2 else f"127.{100 + number // 256 % 100}.{number % 256}.1"


@cache
def client_hello() -> bytes:
    """A ClientHello of TLS 1.2 that asks for an RSA key."""
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    sent = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    return sent.read()
