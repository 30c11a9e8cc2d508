"""The plan of a load: the number of clients, the direction and the rate.

It knows numbers and names; it must never know sockets. A plan is plain values, so it can be sent to another process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, final

DOWN: Final = "down"  # back end -> vehicle
UP: Final = "up"  # vehicle -> back end
DIRECT: Final = "direct"  # both at one address: one broker alone

TOGETHER: Final = 256  # connections that are opened at the same time: fewer than any listener's backlog


@final
@dataclass(frozen=True, slots=True)
class LoadPlan:
    """One of: ``pairs`` of a source and a sink; one source and ``fan_out`` vehicles that subscribe to the fleet topic;
    ``fleet`` vehicles that get commands and send reports in turn, with one back end for each direction; ``idle``
    vehicles that only connect. ``group``: instead of the pairs' sinks, this many back ends share one subscription.

    ``together``: connections that each process opens at the same time.

    ``window``: unacknowledged messages of a source; ``rate``: messages per second of all sources together, 0 for as
    many as the window allows; ``size``: bytes of payload. ``first``: the number of the first vehicle, so that several
    processes can share a plan. ``names``: the pattern that the names of the vehicles have to match; empty: any.
    ``authority``: a file with the authorities of the vehicles' listener, in PEM form; empty: plain TCP. ``cert`` and
    ``key``: files of the vehicles' own certificate, which all of them share; empty: none.
    """

    name: str
    direction: str = DOWN
    pairs: int = 0
    window: int = 1
    rate: int = 0
    qos: int = 1
    size: int = 200
    fan_out: int = 0
    fleet: int = 0
    group: int = 0
    idle: int = 0
    first: int = 0
    together: int = TOGETHER
    names: str = ""
    authority: str = ""
    cert: str = ""
    key: str = ""

    def part(self, number: int, of: int) -> LoadPlan:
        """The share of process ``number`` of ``of``. The receivers of a fan-out, and a group, need one process."""
        if (self.fan_out or self.group) and of > 1:
            raise ValueError(f"{self.name}: its sinks must be in one process, not in {of}")
        pairs, first = _share(self.pairs, number, of)
        fleet, first_of_fleet = _share(self.fleet, number, of)
        idle, first_idle = _share(self.idle, number, of)
        begin = self.first + (first or first_of_fleet or first_idle)
        return replace(self, pairs=pairs, fleet=fleet, idle=idle, rate=self.rate // of, first=begin)

    @property
    def receivers(self) -> int:
        """How many clients get each message."""
        return self.fan_out or 1


def _share(total: int, number: int, of: int) -> tuple[int, int]:
    """The size of share ``number`` of ``total``, and the sum of the shares before it."""
    begin, end = total * number // of, total * (number + 1) // of
    return end - begin, begin


SCENARIOS: Final = {
    plan.name: plan
    for plan in (
        LoadPlan("down-1x100", DOWN, pairs=1, window=100),
        LoadPlan("down-20x20", DOWN, pairs=20, window=20),
        LoadPlan("down-200x1", DOWN, pairs=200, window=1),
        LoadPlan("down-2000x1", DOWN, pairs=2000, window=1),
        LoadPlan("up-1x100", UP, pairs=1, window=100),
        LoadPlan("up-20x20", UP, pairs=20, window=20),
        LoadPlan("up-200x1", UP, pairs=200, window=1),
        LoadPlan("up-2000x1", UP, pairs=2000, window=1),
        LoadPlan("sharedsub-20-5", UP, pairs=20, window=20, group=5),
        LoadPlan("fanout-1-2000", DOWN, fan_out=2000, window=4),
        LoadPlan("connect-10K", idle=10_000),
    )
}
