"""The rows of the comparison: a load, the two systems that carry it, and the ratio that is required.

It knows plans and figures; it must never know how a system is started. What always holds: the ratio of a row says how
many times better ours is, also for figures of which less is better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from mesh.bench.plan import DIRECT, SCENARIOS, LoadPlan
from mesh.bench.run import Connected, Result
from tools.benchmark.secured import MUTUAL, PLAIN, TLS
from tools.benchmark.systems import Amqtt, CMesh, Mosquitto, Ours, System

THROUGHPUT = "messages a second"
LATENCY = "p99 in ms at a rate that the peer carries"
CONNECTIONS = "connections a second, of vehicles that come back"
MEMORY = "bytes for an idle vehicle"
IDLE = 18_000  # a process may have 20,000 descriptors here

Figures = Result | Connected


@dataclass(frozen=True, slots=True)
class Row:
    """``kind``: what is measured; ``least``: the required ratio; ``after``: the row whose peer's rate gives this row's
    rate, and ``share``: the share of that rate; ``shared``: the system and the load share all processors; ``tls``: of
    the vehicles (see ``secured``)."""

    name: str
    kind: str
    plan: LoadPlan
    least: float
    peer: str = "c-mesh"
    after: str = ""
    share: float = 1.0
    shared: bool = False
    tls: str = PLAIN

    def value(self, found: Figures) -> float:
        """The figure of one run."""
        if isinstance(found, Connected):
            return found.again if self.kind == CONNECTIONS else sum(found.memory.values())
        return found.p99 if self.kind == LATENCY else found.rate

    def ratio(self, mine: Figures, theirs: Figures) -> float:
        """How many times better ours is."""
        ours, peers = self.value(mine), self.value(theirs)
        better, worse = (peers, ours) if self.kind in (LATENCY, MEMORY) else (ours, peers)
        return better / worse if worse else 0.0


def rows() -> list[Row]:
    """Every comparison, in the order of the documentation."""
    asked = {
        "down-1x100": 3.0, "down-20x20": 3.0, "down-200x1": 2.0, "down-2000x1": 2.0,
        "up-1x100": 2.0, "up-20x20": 2.0, "up-200x1": 2.0, "up-2000x1": 2.0, "sharedsub-20-5": 1.0,
        "fanout-1-2000": 2.0,
    }  # fmt: skip
    found = [Row(name, THROUGHPUT, SCENARIOS[name], least) for name, least in asked.items()]
    paced = replace(SCENARIOS["down-200x1"], window=1000)
    # At its greatest rate the peer's queues grow; a second row has a rate at which they do not.
    found.append(Row("latency-200", LATENCY, paced, 2.0, after="down-200x1"))
    found.append(Row("latency-200-at-90%", LATENCY, paced, 2.0, after="down-200x1", share=0.9))
    alone = [("1x100", 0, 2.0), ("1x100", 1, 5.0), ("200x1", 1, 1.2), ("2000x1", 1, 1.2)]
    for name, qos, least in alone:
        plan = replace(SCENARIOS[f"down-{name}"], direction=DIRECT, qos=qos)
        found.append(Row(f"alone-{name}-qos{qos}", THROUGHPUT, plan, least, "mosquitto"))
    # With more than one message in flight amqtt takes longer for each message, so this load suits it best.
    alone_with_one = replace(SCENARIOS["down-1x100"], direction=DIRECT, window=1)
    found.append(Row("alone-amqtt-1x1", THROUGHPUT, alone_with_one, 1.0, "amqtt"))
    for name in ("down-1x100", "down-200x1", "up-20x20", "up-200x1"):
        found.append(Row(f"2-cores-{name}", THROUGHPUT, SCENARIOS[name], asked[name], shared=True))
    for name, least in (("down-1x100", 2.0), ("down-200x1", 1.2), ("up-200x1", 1.2)):
        found.append(Row(f"mqtts-{name}", THROUGHPUT, SCENARIOS[name], least, tls=TLS))
    connecting = SCENARIOS["connect-10K"]
    found.append(Row("connect-9000", CONNECTIONS, replace(connecting, idle=9000), 1.0))
    found.append(Row("mqtts-memory-9000", MEMORY, replace(connecting, idle=9000), 1 / 1.5, tls=TLS))
    found.append(Row("mutual-memory-9000", MEMORY, replace(connecting, idle=9000), 1 / 1.5, tls=MUTUAL))
    found.append(Row("memory-18000", MEMORY, replace(connecting, idle=IDLE), 1 / 1.5, "c-mesh-2"))
    return found


SYSTEMS: dict[str, Callable[..., System]] = {
    "ours": Ours,
    "c-mesh": CMesh,
    "c-mesh-2": partial(CMesh, fronts=2),
    "mosquitto": Mosquitto,
    "amqtt": Amqtt,
}
