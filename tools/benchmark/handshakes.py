"""How many TLS connections of vehicles one processor bears: full and resumed handshakes, ours and the C mesh in turn.

It knows certificates, sockets and the system's accounting. What always holds: each connection is a whole one (TCP, TLS
and the end, with or without CONNECT and CONNACK); the cost is the processor time of all processes of a system, and how
busy its processor was is printed beside it: a system with little to do wakes up for each connection, one that is busy
serves many at once.
"""

from __future__ import annotations

import argparse
import itertools
import os
import select
import socket
import ssl
import statistics
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, final

from mesh.bench.usage import cpu_of
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT311, Connect
from tools.benchmark.secured import TLS, Certificates
from tools.benchmark.systems import CMesh, Ours, System

FULL: Final = "full"
RESUMED: Final = "resumed"
CONNECT: Final = "handshake, CONNECT and CONNACK"
ALONE: Final = "handshake alone"
LEAST: Final = 0.8  # of the peer's rate
_TOGETHER: Final = 100  # connections at the same time, as when a fleet comes back
_VEHICLES: Final = 1000
_SECONDS: Final = 10.0
_VERSIONS: Final = (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2)
_SETTLE: Final = 0.2  # seconds until the system has seen the ends of the last connections
_CONNACK: Final = b"\x20\x02\x00\x00"


@final
@dataclass(frozen=True, slots=True)
class Shaken:
    """One measurement: microseconds of processor time of the system for one connection, by process."""

    count: int
    resumed: int
    took: float  # microseconds of time for one connection
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        """Connections a second of one processor."""
        return 1e6 / sum(self.cpu.values())

    @property
    def busy(self) -> float:
        """The share of the time in which the system ran."""
        return sum(self.cpu.values()) / self.took


class Failed(Exception):
    """A connection failed; one sentence."""


def hello(number: int) -> bytes:
    """The CONNECT of a vehicle."""
    name = f"BENCH{number:07}"
    return encode(Connect(MQTT311, name, True, 0, name), MQTT311)


Step = Generator[None, None, bool]
"""One connection: it yields when it waits for bytes, and returns whether its session was resumed."""


@final
class Client:
    """One after another, connections of one vehicle. ``sock`` is that of the present connection. It is as cheap as it
    can be, so that the system under test is the busy one: the server's certificate is not verified, and OpenSSL works
    in memory."""

    def __init__(self, context: ssl.SSLContext, address: tuple[str, int], number: int) -> None:
        self._context = context
        self._address = address
        self._hello = hello(number)
        self._session: ssl.SSLSession | None = None
        self.sock: socket.socket | None = None

    def connect(self, kind: str, way: str) -> Step:
        """One connection. Raises ``OSError`` and ``Failed``."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secured = self._context.wrap_bio(
            incoming, outgoing, server_hostname="localhost", session=self._session if kind == RESUMED else None
        )
        with socket.socket() as sock:
            self.sock = sock
            sock.connect(self._address)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not _done(secured):
                sock.send(outgoing.read())
                yield
                incoming.write(_received(sock))
            if outgoing.pending:
                sock.send(outgoing.read())
            if way == CONNECT:
                secured.write(self._hello)
                sock.send(outgoing.read())
                while (answer := _read(secured)) is None:
                    yield
                    incoming.write(_received(sock))
                if not answer.startswith(_CONNACK):
                    raise Failed(f"CONNECT was answered with {answer.hex() or 'the end of the connection'}")
                self._session = secured.session
        return bool(secured.session_reused)


def _done(secured: ssl.SSLObject) -> bool:
    try:
        secured.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _read(secured: ssl.SSLObject) -> bytes | None:
    try:
        return secured.read(16)
    except ssl.SSLWantReadError:
        return None


def _received(sock: socket.socket) -> bytes:
    data = sock.recv(16384)
    if not data:
        raise Failed("the connection was closed before CONNACK")
    return data


def context_of(files: Certificates, version: ssl.TLSVersion) -> ssl.SSLContext:
    """The clients' settings."""
    context = ssl.create_default_context(cafile=files.authority)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


@final
class Crowd:
    """``clients`` that connect, ``_TOGETHER`` of them at the same time."""

    def __init__(self, clients: list[Client]) -> None:
        self._clients = deque(clients)
        self._steps: dict[int, tuple[Client, Step]] = {}  # by the number of the socket
        self._poll = select.epoll()
        self.resumed = 0

    def run(self, kind: str, way: str, count: int) -> None:
        """``count`` connections. Raises ``OSError`` and ``Failed``."""
        self.resumed = 0
        begun = ended = 0
        while ended < count:
            while begun < count and begun - ended < _TOGETHER:
                client = self._clients.popleft()
                begun += 1
                step = client.connect(kind, way)
                next(step)  # it waits for the answer to its hello
                assert client.sock is not None
                number = client.sock.fileno()
                self._steps[number] = client, step
                self._poll.register(number, select.EPOLLIN)
            events = self._poll.poll(_SECONDS)
            if not events:
                raise Failed(f"no connection went on for {_SECONDS:g} s")
            for number, _ in events:
                ended += self._go_on(number)

    def _go_on(self, number: int) -> int:
        """One step of a connection; returns how many connections have ended."""
        client, step = self._steps[number]
        try:
            next(step)
        except StopIteration as end:  # its socket is closed, so it is not polled
            del self._steps[number]
            self.resumed += end.value
            self._clients.append(client)
            return 1
        return 0


def run(system: System, kind: str, way: str, count: int, version: ssl.TLSVersion) -> Shaken:
    """Measure ``count`` connections of one kind."""
    files = system.certificates
    assert files is not None
    context = context_of(files, version)
    crowd = Crowd([Client(context, system.vehicles, number) for number in range(_VEHICLES)])
    crowd.run(FULL, CONNECT, _VEHICLES)  # the vehicles get their edges, and sessions to resume
    before, began = cpu_of(system.watched.values()), time.perf_counter()
    crowd.run(kind, way, count)
    took = time.perf_counter() - began
    time.sleep(_SETTLE)
    after = cpu_of(system.watched.values())
    cpu = {name: (after[pid] - before[pid]) / count * 1e6 for name, pid in system.watched.items()}
    return Shaken(count, crowd.resumed, took / count * 1e6, cpu)


def measure(options: argparse.Namespace) -> int:
    """Measure both systems in turn, and print the medians and the ratio."""
    worst = 1.0
    os.sched_setaffinity(0, options.load_cpus)
    systems: dict[str, System] = {"ours": Ours(tls=TLS), "c-mesh": CMesh(tls=TLS)}
    try:
        for system in systems.values():
            system.start(options.cpus)
        for version, way, kind in itertools.product(_VERSIONS, (CONNECT, ALONE), (FULL, RESUMED)):
            found: dict[str, list[Shaken]] = {name: [] for name in systems}
            for _ in range(options.rounds):
                for name, system in systems.items():
                    found[name].append(run(system, kind, way, options.count, version))
            ratios = [ours.rate / peer.rate for ours, peer in zip(found["ours"], found["c-mesh"], strict=True)]
            worst = min(worst, statistics.median(ratios))
            print(f"\n{version.name}, {kind}, {way}: connections a second of one processor")
            for name, results in found.items():
                print(f"  {name:8} {_line(results)}")
            print(f"  {statistics.median(ratios):.2f} of the peer's rate "
                  f"({min(ratios):.2f} to {max(ratios):.2f}); asked for {LEAST}", flush=True)  # fmt: skip
    finally:
        for system in systems.values():
            system.stop()
    return 0 if worst >= LEAST else 1


def _line(results: list[Shaken]) -> str:
    rate = statistics.median(one.rate for one in results)
    each = {name: statistics.median(one.cpu[name] for one in results) for name in results[0].cpu}
    parts = ", ".join(f"{name} {used:.0f}" for name, used in each.items())
    resumed = sum(one.resumed for one in results) / sum(one.count for one in results)
    busy = statistics.median(one.busy for one in results)
    return f"{rate:8,.0f}   {sum(each.values()):.0f} us ({parts})   busy {busy:.0%}, {resumed:.0%} resumed"
