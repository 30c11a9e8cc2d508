"""The story of the demonstration, act by act.

It knows the order of the events, and the condition for each next step. What always holds: every wait has a deadline; if
a condition is not met in time, the story ends with ``Failed``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Final, final

from mesh.telemetry.spans import new_trace
from mesh.wire.tracecontext import PARENT
from tools.demonstration.fleet import ASLEEP, DRIVING, BackEnd, Fleet
from tools.demonstration.ledger import Ledger
from tools.demonstration.running import Failed, RunningMesh
from tools.demonstration.screen import Row, Screen, View
from tools.demonstration.setting import Setting
from tools.tracing.collector import Collector
from tools.tracing.spanvalue import SpanValue

VEHICLES: Final = tuple(f"CAR-{number:02}" for number in range(1, 11))
DOINGS: Final = (
    "lights on", "heat to 21 °C", "unlock", "locate", "charge to 80%", "windows up", "sound horn", "lock", "defrost",
    "lights off",
)  # fmt: skip

# Seconds between two commands: 20 per second in total, slow enough to watch.
_PACE: Final = 0.05
_POLL: Final = 0.1
# Seconds for a step that usually takes one second or less: a busy machine needs longer.
_CONNECT_SECONDS: Final = 60.0
# Seconds that the line about the crash stays visible, even if the edge restarts sooner.
_READ_SECONDS: Final = 3.0
# Seconds for Ray to notice the end of the process, and to restart it.
_RETURN_SECONDS: Final = 90.0
_ARRIVE_SECONDS: Final = 60.0
# Nodes export their spans once a second.
_TRACE_SECONDS: Final = 15.0
_TRACE_NODES: Final = 3


@final
class Story:
    """One run of the story. ``close`` ends the clients; the caller stops the mesh."""

    def __init__(self, setting: Setting, mesh: RunningMesh, collector: Collector) -> None:
        self._mesh = mesh
        self._setting = setting
        self._collector = collector
        self._edges: dict[str, str] = {}
        self._doings: Iterator[str] = cycle(DOINGS)
        self._turns: Iterator[str] = cycle(VEHICLES)
        self._there = False
        self.ledger = Ledger(VEHICLES)
        self.fleet = Fleet(VEHICLES, setting.door, self.ledger)
        self.back_end = BackEnd(setting.core, self.ledger)

    def close(self) -> None:
        self.back_end.close()
        self.fleet.close()

    def look(self) -> View:
        """The figures of this moment."""
        nodes = self._mesh.nodes()
        up = {node.name for node in nodes if node.ready}
        rows = []
        for vehicle in self.fleet.vehicles if self._there else ():
            account, edge = self.ledger.account(vehicle.name), self._edges.get(vehicle.name, "")
            rows.append(
                Row(
                    vehicle.name, vehicle.version, edge, edge in up or not edge, vehicle.state, len(account.sent),
                    len(account.delivered), len(account.heard), account.waiting, account.last,
                )
            )  # fmt: skip
        return View(rows, nodes, self.ledger.totals())

    # The acts

    def rise(self, screen: Screen) -> None:
        """The mesh starts."""
        screen.begin("the mesh starts")
        begun = time.monotonic()
        self._mesh.start()
        door, core = self._setting.door, self._setting.core
        screen.done(
            f"the mesh is ready after {time.monotonic() - begun:.0f} s: a front door for vehicles (port {door}),"
            f" two edges, a core for back ends (port {core}), etcd; Ray restarts each after a crash"
        )

    def gather(self, screen: Screen) -> None:
        """The fleet and the back end connect."""
        screen.begin(f"{len(VEHICLES)} vehicles and a back end connect")
        self._there = True
        self.back_end.connect()
        for vehicle in self.fleet.vehicles:
            vehicle.drive()
        self._until(
            screen,
            lambda: self.back_end.ready and self.fleet.all(lambda vehicle: vehicle.state == DRIVING),
            _CONNECT_SECONDS,
            "not every vehicle could connect",
        )
        self._edges = self._mesh.edges()
        count = Counter(self._edges[name] for name in VEHICLES)
        places = ", ".join(f"{number} on {edge}" for edge, number in sorted(count.items()))
        screen.done(f"{len(VEHICLES)} vehicles are connected, half with MQTT 3.1.1, half with 5; the map put {places}")

    def drive(self, screen: Screen) -> None:
        """Commands go out, answers come back."""
        screen.begin("a back end sends commands, every vehicle answers")
        self._send(screen, 3.0)
        screen.done(f"the back end sends {1 / _PACE:.0f} commands per second, every vehicle answers each")

    def sleep(self, screen: Screen) -> tuple[str, str]:
        """One vehicle disconnects; returns its name and its edge, which has the most vehicles."""
        crowded = Counter(self._edges[name] for name in VEHICLES).most_common(1)[0][0]
        name = next(name for name in VEHICLES if self._edges[name] == crowded)
        screen.begin(f"{name} drives into a tunnel and disconnects")
        self.fleet.vehicle(name).sleep()
        self._send(screen, 2.5)
        screen.done(f"{name} drove into a tunnel; its commands wait in the journal of {crowded}")
        return name, crowded

    def crash(self, screen: Screen, edge: str) -> None:
        """The edge is killed, while commands go on."""
        vehicles = sum(1 for name in VEHICLES if self._edges[name] == edge)
        before = self._mesh.kill(edge)
        begun = time.monotonic()
        screen.begin(f"kill -9 {before.pid}: {edge} is dead, and its {vehicles} vehicles do not notice")

        def returned() -> bool:
            now = self._mesh.node(edge)
            return now is not None and now.ready and now.pid != before.pid

        while not returned():
            if time.monotonic() - begun > _RETURN_SECONDS:
                raise Failed(f"{edge} did not restart within {_RETURN_SECONDS:.0f} s")
            self._send(screen, _POLL)
            screen.note(f"{self._waiting()} wait")
        took, after = time.monotonic() - begun, self._mesh.node(edge)
        self._send(screen, max(0.0, _READ_SECONDS - took))
        screen.done(
            f"{edge} was killed (kill -9 {before.pid}) and restarted after {took:.1f} s as process"
            f" {after.pid if after else '?'}; connections dropped: {self.ledger.totals().dropped}"
        )

    def wake(self, screen: Screen, name: str) -> None:
        """The vehicle reconnects and gets the messages that waited for it."""
        screen.begin(f"{name} is still in its tunnel")
        self._send(screen, 1.5)
        account = self.ledger.account(name)
        waited = account.sent - account.delivered
        screen.begin(f"{name} comes out of the tunnel, {len(waited)} commands wait for it")
        vehicle = self.fleet.vehicle(name)
        assert vehicle.state == ASLEEP, "put to sleep before"
        vehicle.drive()
        self._send(screen, 2.0)
        self._until(
            screen,
            lambda: waited <= self.ledger.account(name).delivered,
            _ARRIVE_SECONDS,
            f"{name} did not get all commands that waited for it",
        )
        screen.done(f"{name} came out of the tunnel and got the {len(waited)} commands that had waited for it")

    def settle(self, screen: Screen) -> None:
        """Sending stops; the messages in flight arrive."""
        screen.begin("the messages in flight arrive")
        end = time.monotonic() + _ARRIVE_SECONDS
        while (self.ledger.totals().missing or self.back_end.unanswered) and time.monotonic() < end:
            screen.wait(_POLL)
        totals = self.ledger.totals()
        screen.done("everything has arrived" if totals.flawless else f"{totals.missing} messages did not arrive")

    def trace(self, screen: Screen) -> tuple[str, list[SpanValue]]:
        """Trace one more command; returns its vehicle and spans."""
        screen.begin("one more command, with a trace")
        name = next(vehicle.name for vehicle in self.fleet.vehicles if vehicle.version == "5")
        trace = new_trace()
        self.back_end.command(name, next(self._doings), [(PARENT, trace.traceparent())])
        end = time.monotonic() + _TRACE_SECONDS
        spans: list[SpanValue] = []
        while time.monotonic() < end:
            screen.wait(0.5)
            before, spans = len(spans), self._collector.trace(trace.trace_id)
            if len({span.node for span in spans}) >= _TRACE_NODES and len(spans) == before:
                break
        screen.done(f"one command was traced: {len(spans)} spans")
        return name, spans

    def _waiting(self) -> int:
        return sum(self.ledger.account(name).waiting for name in VEHICLES)

    def _send(self, screen: Screen, seconds: float) -> None:
        """Send commands to all vehicles in turn for a time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.back_end.command(next(self._turns), next(self._doings))
            screen.wait(_PACE)

    def _until(self, screen: Screen, met: Callable[[], bool], seconds: float, otherwise: str) -> None:
        end = time.monotonic() + seconds
        while not met():
            if time.monotonic() > end:
                raise Failed(f"{otherwise} within {seconds:.0f} s")
            screen.wait(_POLL)
