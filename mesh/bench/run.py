"""Runs a load in worker processes and collects the result.

It knows worker processes and the system's accounting; it must never know packets. What always holds: every wait has a
deadline; no worker outlives ``Workers``; a result has the cost and the losses beside the rate.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any, Final, final

from mesh.bench.histogram import Histogram
from mesh.bench.peers import Tally
from mesh.bench.plan import TOGETHER, LoadPlan
from mesh.bench.usage import cpu_of, memory_of

_ANSWER: Final = 20.0  # seconds for a worker's answer to a short command
_QUIET: Final = 0.35  # seconds of processor time in one second, of all nodes together
_LOOK: Final = 0.1  # seconds between two readings of the arrivals
_PARTING: Final = 3.0  # seconds until a system has handled the loss of thousands of connections
_CONNECT: Final = 600.0  # seconds until all connections are open; there may be a hundred thousand

Address = tuple[str, int]


class LoadFailed(Exception):
    """The load failed; one sentence."""


@final
@dataclass(frozen=True, slots=True)
class Result:
    """``rate``: messages per second that arrived; latencies in milliseconds; ``cpu``: microseconds of processor time
    per message, by the name of the process; ``load_cpu``: the load's own share of its processor, 0 to 1 for each
    worker; ``lost``: acknowledged, but not arrived some seconds after the load; ``missing``: numbers that the sinks
    saw skipped; ``overdue``: due at the requested rate, but never sent because too many were due."""

    name: str
    seconds: float
    rate: float
    p50: float
    p99: float
    p999: float
    greatest: float
    cpu: dict[str, float]
    load_cpu: float
    sent: int
    received: int
    lost: int
    repeated: int
    missing: int
    overdue: int
    connect_seconds: float
    connected: int
    lost_connections: int

    @property
    def cpu_total(self) -> float:
        """Microseconds of processor time per message, of all processes together."""
        return sum(self.cpu.values())

    def plain(self) -> dict[str, object]:
        """The values for JSON."""
        return {**asdict(self), "cpu_total": self.cpu_total}


@final
class Workers:
    """``count`` processes that share a plan; they run on the processors ``cpus``, if given."""

    def __init__(self, count: int, cpus: Iterable[int] = ()) -> None:
        pinned = set(cpus)
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}
        command = [sys.executable, "-m", "mesh.bench.worker"]
        self._processes: list[subprocess.Popen[bytes]] = []
        for _ in range(count):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            if pinned:
                os.sched_setaffinity(process.pid, pinned)
            self._processes.append(process)
        self.count = count
        self.connect_seconds = 0.0
        self.connected = 0

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def connect(self, plan: LoadPlan, vehicles: Address, backends: Address) -> tuple[float, int]:
        """Connect all clients; returns the seconds that it took and the number of clients. Raises ``LoadFailed``."""
        count = len(self._processes)
        commands: list[dict[str, Any]] = [
            {"do": "connect", "plan": asdict(plan.part(number, count)), "vehicles": vehicles, "backends": backends}
            for number in range(count)
        ]
        answers = self._each(commands, _CONNECT)
        errors = [error for answer in answers for error in answer["errors"]]
        if errors:
            raise LoadFailed(f"{plan.name}: some clients could not connect: {errors[0]}")
        self.connect_seconds = max(answer["seconds"] for answer in answers)
        self.connected = sum(answer["connected"] for answer in answers)
        return self.connect_seconds, self.connected

    def start(self) -> None:
        """Start to publish."""
        self._all({"do": "start"})

    def snap(self) -> dict[str, Any]:
        """The sums so far; ``latency`` has the latencies since the previous call."""
        return _sum(self._all({"do": "snap"}))

    def stop(self, seconds: float, receivers: int = 1) -> dict[str, Any]:
        """Stop publishing, and wait up to ``seconds`` until all messages have arrived; returns the last sums."""
        found = _sum(self._all({"do": "stop"}))
        deadline = time.monotonic() + seconds
        while found["received"] < found["sent"] * receivers and time.monotonic() < deadline:
            time.sleep(_LOOK)
            found = self.snap()
        return found

    def close(self) -> None:
        """Close all connections."""
        self._all({"do": "close"})

    def _all(self, command: dict[str, Any], patience: float = _ANSWER) -> list[dict[str, Any]]:
        return self._each([command] * len(self._processes), patience)

    def _each(self, commands: list[dict[str, Any]], patience: float) -> list[dict[str, Any]]:
        for process, command in zip(self._processes, commands, strict=True):
            assert process.stdin is not None
            process.stdin.write(json.dumps(command).encode() + b"\n")
            process.stdin.flush()
        deadline = time.monotonic() + patience
        return [self._answer(process, deadline) for process in self._processes]

    def _answer(self, process: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        line = process.stdout.readline() if ready else b""
        if not line:
            raise LoadFailed("a process of the load has ended" if ready else "a process of the load does not answer")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LoadFailed(str(answer["error"]))
        return answer


def _sum(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all workers together."""
    total: dict[str, Any] = {name: sum(answer[name] for answer in answers) for name in (*Tally.FIELDS, "cpu")}
    latency = Histogram()
    for answer in answers:
        latency.add([(bucket, count) for bucket, count in answer["latency"]], answer["greatest"])
    total["latency"] = latency
    total["time"] = answers[0]["time"]
    return total


@final
@dataclass(frozen=True, slots=True)
class Connected:
    """``first`` and ``again``: connections per second of vehicles that connect for the first time, and again; ``cpu``:
    microseconds per second connection, by process; ``memory``: bytes per idle vehicle, by process.
    """

    name: str
    count: int
    first: float
    again: float
    cpu: dict[str, float]
    memory: dict[str, float]

    def plain(self) -> dict[str, object]:
        """The values for JSON."""
        return asdict(self)


def measure_connections(
    plan: LoadPlan, vehicles: Address, watched: Mapping[str, int], *, workers: int = 1, cpus: Iterable[int] = ()
) -> Connected:
    """Connect the idle vehicles of ``plan``, disconnect them, and connect them again, ``plan.together`` at a time.
    Raises ``LoadFailed``."""
    before = memory_of(watched.values())
    with Workers(workers, cpus) as load:
        first, count = load.connect(replace(plan, together=TOGETHER), vehicles, vehicles)
        idle = memory_of(watched.values())
        load.close()
    time.sleep(_PARTING)
    used_before = cpu_of(watched.values())
    with Workers(workers, cpus) as load:
        again, _ = load.connect(plan, vehicles, vehicles)
        used_after = cpu_of(watched.values())
        load.close()
    if not len(before) == len(idle) == len(used_before) == len(used_after) == len(watched):
        raise LoadFailed(f"{plan.name}: a process under test has ended")
    return Connected(
        name=plan.name,
        count=count,
        first=count / first,
        again=count / again,
        cpu={name: (used_after[pid] - used_before[pid]) / count * 1e6 for name, pid in watched.items()},
        memory={name: (idle[pid] - before[pid]) / count for name, pid in watched.items()},
    )


def _settle(watched: Mapping[str, int], seconds: float) -> None:
    """Wait until the processes are almost idle: other nodes may handle a connection later than the door. Raises
    ``LoadFailed``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = sum(cpu_of(watched.values()).values())
        time.sleep(1.0)
        if sum(cpu_of(watched.values()).values()) - before < _QUIET:
            return
    raise LoadFailed(f"{', '.join(watched)} were still busy {seconds:g} s after all clients were connected")


def measure(
    plan: LoadPlan,
    vehicles: Address,
    backends: Address,
    watched: Mapping[str, int],
    *,
    seconds: float,
    warm_up: float,
    drain: float = 20.0,
    settle: float = 0.0,
    workers: int = 1,
    cpus: Iterable[int] = (),
) -> Result:
    """Put the load of ``plan`` on two addresses for ``seconds``, after ``warm_up`` seconds that do not count.

    ``watched``: the processes whose processor time is read, by name. ``settle``: the seconds in which they must become
    idle after all clients are connected; 0: do not wait. Raises ``LoadFailed``.
    """
    with Workers(workers, cpus) as load:
        load.connect(plan, vehicles, backends)
        if settle:
            _settle(watched, settle)
        result = turn(load, plan, watched, seconds=seconds, warm_up=warm_up, drain=drain)
        load.close()
    return result


def turn(
    load: Workers, plan: LoadPlan, watched: Mapping[str, int], *, seconds: float, warm_up: float, drain: float = 20.0
) -> Result:
    """One turn of a connected load: see ``measure``. A load can have several turns: ``sent``, ``received``, ``lost``
    and ``repeated`` are the sums over all turns so far. Raises ``LoadFailed``."""
    load.start()
    time.sleep(warm_up)
    before, used_before = load.snap(), cpu_of(watched.values())
    time.sleep(seconds)
    after, used_after = load.snap(), cpu_of(watched.values())
    last = load.stop(drain, plan.receivers)
    count = after["received"] - before["received"]
    elapsed = after["time"] - before["time"]
    latency: Histogram = after["latency"]
    each = 1e6 / max(1, count)
    return Result(
        name=plan.name,
        seconds=elapsed,
        rate=count / elapsed,
        p50=latency.quantile(0.5) / 1e3,
        p99=latency.quantile(0.99) / 1e3,
        p999=latency.quantile(0.999) / 1e3,
        greatest=latency.greatest / 1e3,
        cpu={
            name: (used_after[pid] - used_before[pid]) * each
            for name, pid in watched.items()
            if pid in used_before and pid in used_after
        },
        load_cpu=(after["cpu"] - before["cpu"]) / elapsed / load.count,
        sent=last["sent"],
        received=last["received"],
        lost=max(0, last["acked"] * plan.receivers - last["received"]) if plan.qos else 0,
        repeated=last["repeated"],
        missing=last["missing"],
        overdue=last["overdue"],
        connect_seconds=load.connect_seconds,
        connected=load.connected,
        lost_connections=last["lost_connections"],
    )
