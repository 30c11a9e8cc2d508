"""When TLS handshakes start: at a pace that leaves the loop to connected clients, one network after the other.

It knows networks, costs and times: never sockets, nor what a handshake is. What always holds:

* in one turn of the loop at least one that waits starts, and further ones only as the time that has passed allows;
* networks take turns, so a client does not wait behind the many of another network;
* at most ``most`` are pending; then those that take long give way to those that wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import islice
from typing import Final, final

from mypy_extensions import mypyc_attr

from mesh.transport.origin import network_of
from mesh.transport.rates import Rates
from mesh.transport.rounds import Rounds

WAITING: Final = 1024  # handshakes that wait; beyond that ``Pace.full``
PENDING: Final = 1024  # handshakes that have begun and not ended
ENDED: Final = 8  # handshakes that give way in one turn
OLD: Final = 1.0  # seconds after which a handshake gives way to others: usual ones take a few round trips
SHARE: Final = 0.25  # of the time that passes, for handshakes that start
LONGEST: Final = 0.002  # seconds of handshakes that start in one turn
MIXED: Final = 60.0  # seconds after the last client of another network in which such clients are expected
_LATER: Final = 0.05  # seconds until it is looked again whether one may start


@mypyc_attr(allow_interpreted_subclasses=True)
class Starting:
    """A handshake that ``Pace`` starts. ``over``: it has ended, or need not start."""

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = False

    def start(self) -> None:
        """It may start."""
        raise NotImplementedError

    def give_way(self) -> None:
        """It has begun and must end, for others that wait."""
        raise NotImplementedError


@final
class Pace:
    """When handshakes start, for all listeners of one kind of a node. In one turn they may take ``SHARE`` of the time
    since the turn before; at least one starts; the networks of clients take turns. When as many as ``most`` are
    pending, those that have taken ``old`` seconds give way. When ``room`` wait, it is ``full``."""

    __slots__ = (
        "_before", "_clock", "_loop", "_mixed", "_network", "_pending", "_timer", "_waiting", "most", "old", "rates",
        "room",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, rates: Rates | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``rates`` bounds how often clients may begin one."""
        self.rates = rates or Rates()
        self.most = PENDING
        self.old = OLD
        self.room = WAITING
        self._loop = loop
        self._clock = clock
        self._waiting: Rounds[tuple[Starting, float]] = Rounds()
        self._pending: dict[Starting, float] = {}  # when each began, the oldest first
        self._timer: asyncio.Handle | None = None
        self._before = 0.0
        self._network = ""  # of the last client
        self._mixed = -MIXED  # when a client's network was another one than that of the client before

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether so many wait that no further connection is to be accepted."""
        return len(self._waiting) >= self.room

    @property
    def calm(self) -> bool:
        """Whether connections may be accepted again."""
        return len(self._waiting) <= self.room // 2

    @property
    def one_sided(self) -> bool:
        """Whether most of those that wait are of one network, and clients come from others too. If all have one, as
        behind a load balancer, none is kept from waiting by others."""
        return self._clock() - self._mixed < MIXED and 2 * self._waiting.most() > len(self._waiting)

    def dominated(self, address: str) -> bool:
        """Whether most of those that wait are of the network of this address."""
        return 2 * self._waiting.of(network_of(address)) > len(self._waiting)

    def ask(self, one: Starting, address: str, cost: float) -> None:
        """Start the handshake of a client with this address when it may start; it takes ``cost`` seconds of processor
        time. It starts in this call if none has started in this turn. Call ``over`` after it, or if it has ended
        before."""
        network = network_of(address)
        if network != self._network:
            self._mixed = self._clock() if self._network else self._mixed
            self._network = network
        idle = self._timer is None
        if idle:
            self._timer = self._loop.call_soon(self._run)  # until then this turn has had its handshake
        if idle and len(self._pending) < self.most:
            self._start(one, self._clock())
        else:
            self._waiting.add(network, (one, cost))

    def over(self, one: Starting) -> None:
        """The handshake has ended."""
        self._pending.pop(one, None)

    def _start(self, one: Starting, now: float) -> None:
        self._pending[one] = now
        one.start()

    def _run(self) -> None:
        self._timer = None
        now = self._clock()
        budget = min(SHARE * (now - self._before), LONGEST)
        self._before = now
        if not self._waiting:
            return
        room = self.most - len(self._pending)
        self._start_some(now, budget, max(room, 0))
        if room > 0 or self._give_way(now):
            self._timer = self._loop.call_soon(self._run)
        else:
            self._timer = self._loop.call_later(_LATER, self._run)

    def _start_some(self, now: float, budget: float, most: int) -> None:
        """At most ``most``, and those that the budget, in seconds, allows."""
        started = 0
        while self._waiting and started < most:
            one, cost = self._waiting.next()
            if not one.over:
                if started and cost > budget:
                    break
                started += 1
                budget -= cost
            self._waiting.take()
            if not one.over:
                self._start(one, now)

    def _give_way(self, now: float) -> bool:
        """End the oldest handshakes, if they are old: as many as wait, and few in one turn. Returns whether some
        ended."""
        most = min(len(self._waiting), ENDED)
        old = [one for one, began in islice(self._pending.items(), most) if now - began >= self.old]
        for one in old:
            self.over(one)
            one.give_way()
        return bool(old)
