"""One worker process of a load: ``python -m mesh.bench.worker``. It reads commands as lines of JSON.

It knows how to connect, start and stop peers. What always holds: it executes ``connect``, ``start``, ``snap``, ``stop``
and ``close`` one after another, and answers each with one line; it ends when its input ends.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import ssl
import sys
import time
from typing import Any, Final, cast, final

import uvloop

from mesh.bench.names import VehicleNames
from mesh.bench.peers import Car, Commander, GroupMember, LoadClient, ReportCollector, ReportSource, Sink, Tally
from mesh.bench.plan import DIRECT, DOWN, UP, LoadPlan
from mesh.cluster.host import all_file_descriptors
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT311, Connect

_PATIENCE: Final = 60.0  # seconds for one connection
_TICK: Final = 0.001  # seconds between two checks for messages that are due
_PER_ADDRESS: Final = 5_000  # connections from one local address; with most of its 28,000 ports taken, the search for a
# free one takes the kernel milliseconds
_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h, IP_BIND_ADDRESS_NO_PORT: a port may serve several destinations
_REPORTS: Final = "vehicles/+/status"
_SHARED: Final = f"$share/bench/{_REPORTS}"

Address = tuple[str, int]


@final
class Load:
    """The peers of one plan. ``vehicles`` and ``backends`` are the addresses for vehicles and for back ends."""

    def __init__(self, plan: LoadPlan, vehicles: Address, backends: Address) -> None:
        self.plan = plan
        self._names = VehicleNames(plan.names)
        self.tally = Tally()
        self.sources: list[ReportSource] = []
        self.sinks: list[Sink] = []
        self.errors: list[str] = []
        self._vehicles = vehicles
        self._backends = backends
        self._tls = _context(plan) if plan.authority else None
        self._loop = asyncio.get_running_loop()
        self._opened = 0
        self._pacer: asyncio.Task[None] | None = None

    # Connecting

    async def connect(self) -> float:
        """Connect all peers, sinks first; returns the seconds that it took."""
        began = time.monotonic()
        plan = self.plan
        if plan.fleet:
            await self._connect_fleet()
            return time.monotonic() - began
        sinks = range(plan.first, plan.first + (plan.group or max(plan.pairs, plan.fan_out, plan.idle)))
        sources = range(plan.first, plan.first + (1 if plan.fan_out else plan.pairs))
        await self._all([self._sink(number) for number in sinks])
        await self._all([self._source(number) for number in sources])
        if plan.qos == 0 and plan.pairs:
            for source, sink in zip(self.sources, self.sinks, strict=True):
                sink.source = source
        return time.monotonic() - began

    async def _connect_fleet(self) -> None:
        """Connect the peers of a fleet. Only the first process has the back end that collects all reports."""
        plan = self.plan
        name_of = self._names.name_of
        name = name_of(plan.first)
        if plan.first == 0:
            ready = _Ready(self, "collector")
            collector = ReportCollector(self._hello("collector", "sink", False), self.tally, ready, _REPORTS, plan.qos)
            self.sinks.append(collector)
            await self._all([(collector, self._backends)])
        names = [name_of(number) for number in range(plan.first, plan.first + plan.fleet)]
        cars: list[tuple[LoadClient, Address]] = []
        topics = [f"vehicles/{car}/cmd/go".encode() for car in names]
        hello = self._hello(name, "commander", False)
        commander = Commander(hello, self.tally, _Ready(self, name), topics, plan.qos, plan.size, plan.window)
        for car in names:
            filter, topic = f"vehicles/{car}/cmd/#", f"vehicles/{car}/status"
            hello = self._hello(car, "car", True)
            peer = Car(hello, self.tally, _Ready(self, car), topic, filter, plan.qos, plan.size, plan.window)
            cars.append((peer, self._vehicles))
            self.sources += [commander, peer]  # the pacer lets them publish in turn
        await self._all([(commander, self._backends)])
        await self._all(cars)

    def _sink(self, number: int) -> tuple[LoadClient, Address]:
        name, vehicle = self._names.name_of(number), self.plan.direction == DOWN
        topic = "" if self.plan.idle else _SHARED if self.plan.group else self._topic(name)
        kind = GroupMember if self.plan.group else Sink
        sink = kind(self._hello(name, "sink", vehicle), self.tally, _Ready(self, name), topic, self.plan.qos)
        self.sinks.append(sink)
        return sink, self._vehicles if vehicle else self._backends

    def _source(self, number: int) -> tuple[LoadClient, Address]:
        plan, name = self.plan, self._names.name_of(number)
        vehicle = plan.direction == UP
        hello = self._hello(name, "source", vehicle)
        topic = self._topic(name)
        source = ReportSource(hello, self.tally, _Ready(self, name), topic, plan.qos, plan.size, plan.window)
        self.sources.append(source)
        return source, self._vehicles if vehicle else self._backends

    def _hello(self, name: str, role: str, vehicle: bool) -> bytes:
        """A CONNECT without keep alive: a load needs no check for lost peers. A vehicle's user name is its client
        id."""
        client_id = name if vehicle else f"{name}-{role}"
        return encode(Connect(MQTT311, client_id, True, 0, client_id), MQTT311)

    def _topic(self, name: str) -> str:
        if self.plan.fan_out:
            return "fleet/bench"
        if self.plan.direction == DIRECT:
            return f"bench/{name}"  # not a vehicle's topic, so that the core alone carries it
        return f"vehicles/{name}/{'status' if self.plan.direction == UP else 'cmd/go'}"

    async def _all(self, peers: list[tuple[LoadClient, Address]]) -> None:
        gate = asyncio.Semaphore(self.plan.together)
        results = await asyncio.gather(*(self._one(peer, address, gate) for peer, address in peers))
        self.errors += [error for error in results if error]

    async def _one(self, peer: LoadClient, address: Address, gate: asyncio.Semaphore) -> str:
        ready = peer.ready
        assert isinstance(ready, _Ready)
        async with gate:
            try:
                async with asyncio.timeout(_PATIENCE):
                    protocol = cast(asyncio.BaseProtocol, peer)  # a compiled class cannot derive from BaseProtocol
                    connected = await self._socket(address)
                    tls = self._tls if address == self._vehicles else None
                    await self._loop.create_connection(
                        lambda: protocol, sock=connected, ssl=tls, server_hostname=None if tls is None else address[0]
                    )
                    accepted = await ready.done
            except (OSError, TimeoutError) as error:
                return f"{address[0]}:{address[1]}: {error or 'no answer in time'}"
        return "" if accepted else f"{ready.name} was refused"

    async def _socket(self, address: Address) -> socket.socket:
        """A connected socket. Every ``_PER_ADDRESS`` connections have another local address."""
        block = (self.plan.first + self._opened) // _PER_ADDRESS
        self._opened += 1
        made = socket.socket()
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if block and address[0].startswith("127."):
                made.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                made.bind((f"127.0.1.{block}", 0))
            await self._loop.sock_connect(made, address)
        except BaseException:
            made.close()
            raise
        return made

    # The load

    def start(self) -> None:
        """Start to publish."""
        if self.plan.rate:
            self._pacer = self._loop.create_task(self._keep_pace())
        else:
            for source in self.sources:
                source.start()

    async def _keep_pace(self) -> None:
        """Tell the sources in turn that a message is due, at the plan's rate."""
        period = 1e9 / self.plan.rate
        began = time.monotonic_ns()
        count = 0
        sources = self.sources
        while True:
            touched: dict[ReportSource, None] = {}
            passed = time.monotonic_ns() - began
            while (at := count * period) <= passed:
                source = sources[count % len(sources)]
                source.due(began + int(at))
                touched[source] = None
                count += 1
            for source in touched:
                source.flush()
            await asyncio.sleep(_TICK)

    def snap(self) -> dict[str, Any]:
        """The counts so far, and the latencies since the previous call."""
        tally = self.tally
        figures: dict[str, Any] = {name: getattr(tally, name) for name in Tally.FIELDS}
        figures["latency"] = tally.latency.buckets()
        figures["greatest"] = tally.latency.greatest
        figures["time"] = time.monotonic()
        figures["cpu"] = time.process_time()
        tally.latency.clear()
        return figures

    async def stop(self) -> dict[str, Any]:
        """Stop publishing."""
        if self._pacer is not None:
            self._pacer.cancel()
            await asyncio.gather(self._pacer, return_exceptions=True)
        for source in self.sources:
            source.stop()
        return self.snap()

    def close(self) -> None:
        """Close all connections."""
        for peer in {*self.sources, *self.sinks}:
            peer.leave()


def _context(plan: LoadPlan) -> ssl.SSLContext:
    """The vehicles' side of TLS."""
    context = ssl.create_default_context(cafile=plan.authority)
    if plan.cert:
        context.load_cert_chain(plan.cert, plan.key)
    return context


@final
class _Ready:
    """The ``ready`` callback of a peer; ``done`` has its result."""

    def __init__(self, load: Load, name: str) -> None:
        self.name = name
        self.done: asyncio.Future[bool] = load._loop.create_future()

    def __call__(self, accepted: bool) -> None:
        if not self.done.done():
            self.done.set_result(accepted)


async def main() -> None:
    """Read commands until the input ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    load: Load | None = None
    while line := await reader.readline():
        command = json.loads(line)
        verb = command["do"]
        answer: dict[str, Any] = {}
        if verb == "connect":
            load = Load(LoadPlan(**command["plan"]), tuple(command["vehicles"]), tuple(command["backends"]))
            answer = {"seconds": await load.connect(), "connected": load.tally.connected, "errors": load.errors[:5]}
            gc.collect()
            gc.freeze()
        elif load is None:
            answer = {"error": "connect comes first"}
        elif verb == "start":
            load.start()
        elif verb == "snap":
            answer = load.snap()
        elif verb == "stop":
            answer = await load.stop()
        elif verb == "close":
            load.close()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    all_file_descriptors()
    gc.set_threshold(50_000, 20, 50)
    uvloop.run(main())
