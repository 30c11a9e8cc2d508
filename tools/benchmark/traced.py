"""The cost of tracing: the same load with none, some and all of the messages traced.

It knows meshes that run at the same time and get the load in short turns, because the cost is smaller than the drift of
the machine's speed within minutes. What always holds: a mesh is measured after it has used its burst allowance of
traces, so that the figure is that of continuous tracing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, final

from mesh.bench.plan import SCENARIOS
from mesh.bench.run import Result, Workers, turn
from mesh.registry.embedded import free_ports
from tools.benchmark.systems import Ours, pinned

PLAN = SCENARIOS["down-20x20"]
SAMPLES = (0.0, 0.01, 1.0)
TURNS = 4  # for each round
TURN = 2.0  # seconds of one turn
FIRST = 1.0  # seconds of warm-up before each turn
DRAIN = 20.0
SERIES = {
    "recorded": "mesh_spans_recorded_total", "exported": "mesh_spans_exported_total",
    "dropped": "mesh_spans_dropped_total", "suppressed": "mesh_traces_suppressed_total",
}  # fmt: skip
COUNTS = tuple(SERIES)

Found = dict[str, Any]


@contextmanager
def collector(cpus: set[int]) -> Iterator[str]:
    """A running collector; gives its address."""
    (port,) = free_ports(1)
    with pinned(cpus):
        command = [sys.executable, "-m", "tools.benchmark.collector", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@final
class Traced:
    """A mesh that traces a share of the messages, and its load."""

    def __init__(self, share: float, endpoint: str, cpus: set[int], load_cpus: set[int], ended: ExitStack) -> None:
        self._mesh = Ours(telemetry=f'telemetry: {{otlp: "{endpoint}", sample: {share}}}\n' if share else "")
        ended.callback(self._mesh.stop)
        self._mesh.start(cpus)
        self._load = ended.enter_context(Workers(1, load_cpus))
        self._load.connect(PLAN, self._mesh.vehicles, self._mesh.backends)
        self._share = share
        self._results: list[Result] = []

    def turn(self) -> None:
        """One turn of load."""
        watched = self._mesh.watched
        self._results.append(turn(self._load, PLAN, watched, seconds=TURN, warm_up=FIRST, drain=DRAIN))

    def found(self) -> Found:
        """``rates`` and ``cpu`` (microseconds per message) of each turn; ``lost`` of all turns; the counts of spans."""
        figures = [node["figures"] for node in self._mesh.nodes()]
        return {
            "sample": self._share, "rates": [one.rate for one in self._results],
            "cpu": [one.cpu_total for one in self._results], "lost": self._results[-1].lost,
            "spans": {name: sum(one.get(series, 0) for one in figures) for name, series in SERIES.items()},
        }  # fmt: skip


def samples(cpus: set[int], load_cpus: set[int], rounds: int) -> list[Found]:
    """Measure one mesh for each share, in turn. The order changes, so that none always follows the same one."""
    with ExitStack() as ended:
        endpoint = ended.enter_context(collector(load_cpus))
        meshes = [Traced(share, endpoint, cpus, load_cpus, ended) for share in SAMPLES]
        for number in range(rounds * TURNS):
            for mesh in meshes[:: -1 if number % 2 else 1]:
                mesh.turn()
        return [mesh.found() for mesh in meshes]
