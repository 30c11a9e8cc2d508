"""Threads in which passwords are hashed, and proofs that were given lately.

It knows hashes and passwords: never users' rights, files or connections. What always holds:

* at most one thread for each processor hashes, with a lower priority than the loop; a password that would not be hashed
  within ``PATIENCE`` is refused at once, so that its client comes again instead of waiting in vain;
* passwords of networks that send many do not delay those of others (``fairslots``);
* a proof that is remembered is a digest with a key of this process, never a password; it is good for the hash that it
  was given for, for ``LASTING`` seconds; the table is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from hmac import compare_digest
from typing import Final, final

from mesh.policy.fairslots import FairSlots
from mesh.policy.hashes import verify
from mesh.transport.refusal import Refused
from mesh.wire.reasons import SERVER_BUSY

PATIENCE: Final = 5.0
"""Seconds that a password may wait for a thread: half of what a chain has for its decision."""

LASTING: Final = 3600.0
"""Seconds that a proof is good for: a fleet that lost its network comes back within the hour."""

REMEMBERED: Final = 131_072
"""Proofs; some 40 MB. At the limit the one that was used least recently is forgotten."""

_WAITING: Final = 50_000  # passwords, however quick the hashes are: some 20 MB
_NICE: Final = 10
_WEIGHT: Final = 0.05  # of the last hash in the average


@final
class Hasher:
    """``threads``: how many; 0 for one each processor."""

    def __init__(self, threads: int = 0) -> None:
        self._parallel = threads or os.cpu_count() or 1
        self._slots = FairSlots(self._parallel)
        self._pool = ThreadPoolExecutor(self._parallel, "password", initializer=_step_back)
        self._mean = 0.0  # seconds that a hash took lately

    async def verify(
        self, hash: str, password: bytes, check: Callable[[], None], network: str = "", trusted: bool = False
    ) -> bool:
        """Whether a password is that of a hash. ``check`` is called before the work begins, and may raise. ``network``:
        where it comes from; ``trusted``: a client that gave the right one before, which goes first.

        Raises ``Refused`` with 0x89 (3 before MQTT 5.0) if too many others wait, and what ``check`` raises.
        """
        slots = self._slots
        wait = self._mean * slots.ahead(network, trusted) / self._parallel
        if wait > PATIENCE or slots.waiting >= _WAITING:
            raise Refused(SERVER_BUSY, f"{slots.waiting} passwords wait to be hashed, this one up to {wait:.0f} s")
        await slots.acquire(network, trusted)
        try:
            check()
            work = asyncio.get_running_loop().run_in_executor(self._pool, _timed, hash, password)
        except BaseException:
            self._slots.release()
            raise
        # The slot belongs to the thread's work, which goes on if the client leaves.
        work.add_done_callback(lambda _: self._slots.release())
        matches, took = await asyncio.shield(work)
        self._mean += (took - self._mean) * _WEIGHT
        return matches

    def close(self) -> None:
        """End the threads when they are done with what they have."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _timed(hash: str, password: bytes) -> tuple[bool, float]:
    begun = time.perf_counter()
    return verify(hash, password), time.perf_counter() - begun


def _step_back() -> None:
    """Linux has a priority for each thread. The loop's is the usual one, so connected clients do not wait for hashes.
    Other systems have one for a process only."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


@final
class Proofs:
    """``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        # Name: the digest of name and password, the hash that it was right for, and when it was hashed.
        self._known: OrderedDict[str, tuple[bytes, str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def has(self, name: str, password: bytes, hash: str) -> bool:
        """Whether this password was right for this name and this hash lately."""
        found = self._known.get(name)
        if found is None:
            return False
        digest, right, since = found
        if right != hash or self._clock() - since > LASTING:
            del self._known[name]
            return False
        if not compare_digest(digest, self._digest(name, password)):
            return False
        self._known.move_to_end(name)
        return True

    def add(self, name: str, password: bytes, hash: str) -> None:
        """This password is right."""
        self._known[name] = (self._digest(name, password), hash, self._clock())
        self._known.move_to_end(name)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _digest(self, name: str, password: bytes) -> bytes:
        text = name.encode(errors="surrogatepass")
        return blake2b(len(text).to_bytes(4, "big") + text + password, key=self._key, digest_size=16).digest()
