"""What a load is: how many pairs, which way, how fast.

It knows numbers and names: never sockets. A plan is plain values, so it can be sent to another process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, final

DOWN: Final = "down"  # back end -> vehicle
UP: Final = "up"  # vehicle -> back end
DIRECT: Final = "direct"  # both at one address: one broker alone

TOGETHER: Final = 256  # connections that are being made at a time: below any listener's backlog


@final
@dataclass(frozen=True, slots=True)
class LoadPlan:
    """``pairs`` of a source and a sink; or one source and ``fan_out`` vehicles that read what is for the fleet; or
    ``fleet`` vehicles that are commanded and report in turn, with one back end for each way; or ``idle`` vehicles that
    only connect. ``group``: in place of the sinks of the pairs, so many back ends share what all of them publish.

    ``together``: connections that are being made at a time, in each process.

    ``window``: messages of a source that are not acknowledged; ``rate``: messages a second of all sources together, 0
    for as many as the window allows; ``size``: bytes of payload. ``first``: the number of the first vehicle, so that
    several processes share a plan.
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

    def part(self, number: int, of: int) -> LoadPlan:
        """The share of one of several processes. The receivers of a fan-out, and a group, belong to one process."""
        if (self.fan_out or self.group) and of > 1:
            raise ValueError(f"{self.name}: its sinks are one process's, not that of {of}")
        pairs, first = _share(self.pairs, number, of)
        fleet, first_of_fleet = _share(self.fleet, number, of)
        idle, first_idle = _share(self.idle, number, of)
        begin = self.first + (first or first_of_fleet or first_idle)
        return replace(self, pairs=pairs, fleet=fleet, idle=idle, rate=self.rate // of, first=begin)

    @property
    def receivers(self) -> int:
        """How many get each message."""
        return self.fan_out or 1


def _share(total: int, number: int, of: int) -> tuple[int, int]:
    """How many of ``total``, and after how many others."""
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
