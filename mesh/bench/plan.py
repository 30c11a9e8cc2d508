"""What a load is: how many pairs, which way, how fast.

It knows numbers and names: never sockets. A plan is plain values, so it can be sent to another process. The scenarios
bear the names of the open MQTT benchmark suite (emqx/mqttbs) where they are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, final

DOWN: Final = "down"  # back end -> vehicle
UP: Final = "up"  # vehicle -> back end
DIRECT: Final = "direct"  # both at one address: one broker alone


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """``pairs`` of a source and a sink; or ``fan_out`` sinks for each of the sources; or ``idle`` connections.

    ``window``: messages of a source that are not acknowledged; ``rate``: messages a second of all sources together, 0
    for as many as the window allows; ``size``: bytes of payload. ``pace``: connections a second, 0 for as fast as they
    are accepted. ``first``: the number of the first vehicle, so that several processes share a plan.
    """

    name: str
    direction: str = DOWN
    pairs: int = 0
    window: int = 1
    rate: int = 0
    qos: int = 1
    size: int = 200
    fan_out: int = 0
    idle: int = 0
    pace: int = 0
    first: int = 0
    durable: bool = False

    def part(self, number: int, of: int) -> Plan:
        """The share of one of several processes."""
        pairs, first = _share(self.pairs, number, of)
        idle, first_idle = _share(self.idle, number, of)
        sinks, first_sink = _share(self.fan_out, number, of)
        rate, pace = self.rate // of, self.pace // of
        begin = self.first + (first or first_idle or first_sink)
        return replace(self, pairs=pairs, idle=idle, fan_out=sinks, rate=rate, pace=pace, first=begin)


def _share(total: int, number: int, of: int) -> tuple[int, int]:
    """How many of ``total``, and after how many others."""
    begin, end = total * number // of, total * (number + 1) // of
    return end - begin, begin


SCENARIOS: Final = {
    plan.name: plan
    for plan in (
        Plan("down-1x100", DOWN, pairs=1, window=100),
        Plan("down-20x20", DOWN, pairs=20, window=20),
        Plan("down-200x1", DOWN, pairs=200, window=1),
        Plan("down-2000x1", DOWN, pairs=2000, window=1),
        Plan("up-1x100", UP, pairs=1, window=100),
        Plan("up-20x20", UP, pairs=20, window=20),
        Plan("up-200x1", UP, pairs=200, window=1),
        Plan("up-2000x1", UP, pairs=2000, window=1),
    )
}
