"""Decides which messages are sampled: the caller's decision, else the watch list, else the ratio.

It knows rates and names of vehicles. It must never know spans. What always holds: a message that is not sampled costs
one subtraction, because the number of messages until the next sampled one is drawn in advance; samples that callers
force are bounded by a rate, so no caller can overload the mesh with tracing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import log
from random import random
from time import monotonic
from typing import Final, final

from mesh.wire.tracecontext import TraceContext

# A recorded span costs up to 150 µs in all (nearly all of it on the export thread) and a node makes about three for a
# message: 200 messages a second keep tracing below a tenth of a core. Each of the three reasons has a separate budget,
# so that none starves another.
RATE: Final = 200.0
# Messages that the ratio samples must cost almost nothing. A message makes six spans on its way downstream, some 110 µs
# each with their export: 10 messages a second are 0.7 % of a core that all nodes share.
RATIO_RATE: Final = 10.0
# Other nodes of the mesh bound their own decisions, once per node. They also pass on messages that they do not sample,
# with the publisher's context unchanged, so this needs a bound too; it allows for ten busy nodes.
TRUSTED_RATE: Final = 2000.0
# A user who examines one trace sends a few messages at once and expects to see them all.
BURST: Final = 400.0
# More messages than a node ever processes: the ratio picks none.
_NEVER: Final = 1 << 60


@final
class Bucket:
    """A token bucket: ``rate`` per second on average, ``burst`` at once. ``clock`` gives seconds.

    The clock is read only when the bucket is empty, so up to two bursts may follow each other after a pause.
    """

    __slots__ = ("_burst", "_clock", "_filled", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._filled = clock()
        self._tokens = burst

    def take(self) -> bool:
        """Take one token, if there is one."""
        if self._tokens < 1.0:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
            self._filled = now
            if self._tokens < 1.0:
                return False
        self._tokens -= 1.0
        return True


@final
class Sampler:
    """Decides for one node. ``suppressed`` counts the messages that only the rate kept from being sampled."""

    __slots__ = (
        "_by_caller", "_by_mesh", "_by_ratio", "_by_watch", "_ratio", "_skip", "_watched", "suppressed",
    )  # fmt: skip

    def __init__(
        self,
        ratio: float,
        watch: Iterable[str] = (),
        rate: float = RATE,
        burst: float = BURST,
        clock: Callable[[], float] = monotonic,
        ratio_rate: float = RATIO_RATE,
    ) -> None:
        """``ratio``: the share of the remaining messages, from 0.0 to 1.0; ``watch``: the vehicles whose every message
        is sampled.
        """
        self._ratio = 0.0
        self._skip = _NEVER  # messages until the ratio picks one; below 0: it picks the current one
        self._watched: frozenset[str] = frozenset()
        self._by_caller = Bucket(rate, burst, clock)
        self._by_mesh = Bucket(TRUSTED_RATE, TRUSTED_RATE, clock)
        self._by_watch = Bucket(rate, burst, clock)
        self._by_ratio = Bucket(ratio_rate, burst, clock)
        self.suppressed = 0
        self.take(ratio, watch)

    def take(self, ratio: float, watch: Iterable[str]) -> None:
        """Sample by another ratio and another watch list from now on; what was counted stays."""
        if not 0.0 <= ratio <= 1.0:
            raise ValueError(f"the ratio of messages to sample must be between 0 and 1, not {ratio}")
        self._ratio = ratio
        self._skip = _gap(ratio)
        self._watched = frozenset(watch)

    def in_force(self) -> dict[str, object]:
        """The ratio, and the vehicles that are watched."""
        return {"sample": self._ratio, "watch": sorted(self._watched)}

    def picks(self) -> bool:
        """Count a message that no node of the mesh has decided on; return whether it may be sampled without a request
        of its caller. A caller's decision takes precedence in ``decide``: then the ratio picks the next message
        instead.
        """
        self._skip -= 1
        return self._skip < 0 or bool(self._watched)

    def decide(self, caller: TraceContext | None, vehicle: str, trusted: bool) -> bool:
        """Whether to sample a message. A caller's decision against it is respected.

        ``trusted``: the caller is a node of the mesh. It decided when the message entered the mesh, so a missing
        context means no.
        """
        if trusted:
            return caller is not None and caller.sampled and self._within(self._by_mesh)
        if caller is not None:
            return caller.sampled and self._within(self._by_caller)
        if vehicle in self._watched:
            return self._within(self._by_watch)
        if self._skip >= 0:
            return False
        self._skip = _gap(self._ratio)
        return self._within(self._by_ratio)

    def _within(self, bucket: Bucket) -> bool:
        if bucket.take():
            return True
        self.suppressed += 1
        return False


def _gap(ratio: float) -> int:
    """How many messages are not picked before the next one is, if each is picked with probability ``ratio``: geometric,
    by inversion (Devroye, Non-Uniform Random Variate Generation, X.2.2)."""
    if ratio <= 0.0:
        return _NEVER
    if ratio >= 1.0:
        return 0
    return min(_NEVER, int(log(1.0 - random()) / log(1.0 - ratio)))
