"""How many TLS connections of vehicles one processor bears: full and resumed handshakes, ours and the C mesh in turn.

It knows certificates, sockets and the system's accounting. What always holds: each connection is a whole one: TCP, TLS,
CONNECT, CONNACK and the end; the cost is the processor time of all processes of a system, so the client, which costs
about as much as the server, does not hide it.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import ssl
import statistics
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, final

from mesh.bench.usage import cpu_of
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT311, Connect
from tools.benchmark.secured import TLS, Certificates
from tools.benchmark.systems import CMesh, Ours, System

FULL: Final = "full"
RESUMED: Final = "resumed"
LEAST: Final = 0.8  # of the peer's rate
_TOGETHER: Final = 100  # connections at the same time, as when a fleet comes back
_VEHICLES: Final = 1000
_SECONDS: Final = 10.0
_CONNACK: Final = b"\x20\x02\x00\x00"


@final
@dataclass(frozen=True, slots=True)
class Shaken:
    """One measurement: microseconds of processor time of the system for one connection, by process."""

    count: int
    resumed: int
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        """Connections a second of one processor."""
        return 1e6 / sum(self.cpu.values())


class Failed(Exception):
    """A connection failed; one sentence."""


def hello(number: int) -> bytes:
    """The CONNECT of a vehicle."""
    name = f"BENCH{number:07}"
    return encode(Connect(MQTT311, name, True, 0, name), MQTT311)


Step = Generator[int, None, bool]
"""One connection: it yields the event of its socket that it waits for, and returns whether its session was resumed."""


@final
class Client:
    """One after another, connections of one vehicle. ``sock`` is that of the present connection."""

    def __init__(self, files: Certificates, address: tuple[str, int], version: ssl.TLSVersion, number: int) -> None:
        self._context = ssl.create_default_context(cafile=files.authority)
        self._context.minimum_version = self._context.maximum_version = version
        self._address = address
        self._hello = hello(number)
        self._session: ssl.SSLSession | None = None
        self.sock: ssl.SSLSocket | None = None

    def connect(self, kind: str) -> Step:
        """One connection. Raises ``OSError`` and ``Failed``."""
        plain = socket.create_connection(self._address, _SECONDS)
        plain.setblocking(False)
        self.sock = sock = self._context.wrap_socket(
            plain, server_hostname="localhost", do_handshake_on_connect=False,
            session=self._session if kind == RESUMED else None,
        )  # fmt: skip
        with sock:
            yield from _waiting(sock.do_handshake)
            sock.send(self._hello)
            answer = yield from _waiting(lambda: sock.recv(16))
            if not answer.startswith(_CONNACK):
                raise Failed(f"CONNECT was answered with {answer.hex() or 'the end of the connection'}")
            self._session = sock.session
            return bool(sock.session_reused)


def _waiting(call: Callable[[], Any]) -> Generator[int, None, Any]:
    """Repeat a call of a socket until it has not to wait."""
    while True:
        try:
            return call()
        except ssl.SSLWantReadError:
            yield selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            yield selectors.EVENT_WRITE


@final
class Crowd:
    """``clients`` that connect, ``_TOGETHER`` of them at the same time."""

    def __init__(self, clients: list[Client]) -> None:
        self._clients = deque(clients)
        self._selector = selectors.DefaultSelector()
        self.resumed = 0

    def run(self, kind: str, count: int) -> None:
        """``count`` connections. Raises ``OSError`` and ``Failed``."""
        self.resumed = 0
        begun = ended = 0
        while ended < count:
            while begun < count and begun - ended < _TOGETHER:
                client = self._clients.popleft()
                begun += 1
                ended += self._go_on(client, client.connect(kind), None)
            events = self._selector.select(_SECONDS)
            if not events:
                raise Failed(f"no connection went on for {_SECONDS:g} s")
            for key, _ in events:
                client, step = key.data
                ended += self._go_on(client, step, key)

    def _go_on(self, client: Client, step: Step, key: selectors.SelectorKey | None) -> int:
        """One step of a connection; returns how many connections have ended."""
        try:
            if key is not None:
                self._selector.unregister(key.fileobj)
            wanted = next(step)
        except StopIteration as end:
            self.resumed += end.value
            self._clients.append(client)
            return 1
        assert client.sock is not None
        self._selector.register(client.sock, wanted, (client, step))
        return 0


def run(system: System, kind: str, count: int, version: ssl.TLSVersion) -> Shaken:
    """Measure ``count`` connections of one kind."""
    files = system.certificates
    assert files is not None
    crowd = Crowd([Client(files, system.vehicles, version, number) for number in range(_VEHICLES)])
    crowd.run(FULL, _VEHICLES)  # the vehicles get their edges, and sessions to resume
    before = cpu_of(system.watched.values())
    crowd.run(kind, count)
    after = cpu_of(system.watched.values())
    cpu = {name: (after[pid] - before[pid]) / count * 1e6 for name, pid in system.watched.items()}
    return Shaken(count, crowd.resumed, cpu)


def measure(options: argparse.Namespace) -> int:
    """Measure both systems in turn, and print the medians and the ratio."""
    worst = 1.0
    os.sched_setaffinity(0, options.load_cpus)
    systems: dict[str, System] = {"ours": Ours(tls=TLS), "c-mesh": CMesh(tls=TLS)}
    try:
        for system in systems.values():
            system.start(options.cpus)
        for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            for kind in (FULL, RESUMED):
                found: dict[str, list[Shaken]] = {name: [] for name in systems}
                for _ in range(options.rounds):
                    for name, system in systems.items():
                        found[name].append(run(system, kind, options.count, version))
                ratios = [ours.rate / peer.rate for ours, peer in zip(found["ours"], found["c-mesh"], strict=True)]
                worst = min(worst, statistics.median(ratios))
                print(f"\n{version.name}, {kind} handshakes: connections a second of one processor")
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
    return f"{rate:8,.0f}   {sum(each.values()):.0f} us ({parts})   {resumed:.0%} resumed"
