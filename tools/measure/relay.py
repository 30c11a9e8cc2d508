"""QoS 1 messages per second that one core relays: our broker, and Mosquitto in the same run.

One publisher keeps 100 messages (or ``--in-flight``) of 200 bytes in flight; one subscriber acknowledges each. The
broker runs on the first processor that this process may use, the load on the second. Rounds are interleaved, and every
row has a new process. It prints medians with their range, the broker's processor time per message, the ratio to
Mosquitto, and whether the package is compiled. The rows are: ours with a clean session, ours with a durable session
(journal synced), and the same for Mosquitto, which syncs nothing to disk.

    ./scripts/measure relay [--rounds 5] [--seconds 3] [--in-flight 100]

Mosquitto's rows need `mosquitto` on the PATH.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import uvloop

from mesh.registry.embedded import free_ports
from mesh.version import compiled
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT311, Connect, Subscribe, Subscription

TOPIC = "bench/relay"
PAYLOAD = 200
READY = 20.0


# The broker under test


async def serve(port: int, folder: Path) -> None:
    """Our broker with its journal behind one endpoint, as a core runs it."""
    from mesh.broker.broker import Broker
    from mesh.broker.principal import BACKEND, Principal, everything
    from mesh.broker.settings import Settings
    from mesh.broker.trace import Tracer
    from mesh.journal.journal import Journal
    from mesh.node.brokerhost import BrokerHost
    from mesh.transport.admission import Admission
    from mesh.transport.endpoint import Endpoint
    from mesh.transport.listen import Listen
    from mesh.wire.limits import PacketLimits

    loop = asyncio.get_running_loop()
    journal = Journal.open(folder, notify=loop.call_soon_threadsafe)
    broker = Broker(Settings(), journal, time.time, Tracer())
    broker.recover(journal.live())
    host = BrokerHost(journal, broker)
    host.start()
    principal = Principal("bench", BACKEND, everything())
    endpoint = Endpoint(
        "bench", broker, host.turn, host.wheel, lambda connect, peer, proven: principal,
        listen=[Listen("mqtt", "127.0.0.1", port)], admission=Admission(PacketLimits(), 100),
    )  # fmt: skip
    await endpoint.start()
    await asyncio.Event().wait()


def start_ours(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """Our broker in a separate process."""
    return subprocess.Popen([sys.executable, "-m", "tools.measure.relay", "--serve", str(port), str(folder)])


def start_mosquitto(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """Mosquitto, with its queues unlimited and Nagle off."""
    settings = folder / "mosquitto.conf"
    settings.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 0\n"
        "max_queued_messages 0\nlog_type error\n"
    )
    return subprocess.Popen([shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(settings)])


# The load


class Peer(asyncio.Protocol):
    """One client; ``first`` is answered by packets of ``expected`` bytes before the load begins."""

    def __init__(self, first: bytes, expected: int) -> None:
        self.first = first
        self.expected = expected
        self.greeting = b""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self.first)

    def data_received(self, data: bytes) -> None:
        if self.ready.done():
            self.load(data)
            return
        self.greeting += data
        if len(self.greeting) >= self.expected:
            self.ready.set_result(None)

    def load(self, data: bytes) -> None:
        raise NotImplementedError


class Publisher(Peer):
    """Keeps the window full. Packets are encoded in advance, so that the load costs little."""

    def __init__(self) -> None:
        super().__init__(encode(Connect(MQTT311, "publisher", True, 0), MQTT311), 4)
        topic = TOPIC.encode()
        body = len(topic).to_bytes(2, "big") + topic
        size = len(body) + 2 + PAYLOAD
        header = b"\x32" + bytes((size & 0x7F | 0x80, size >> 7))
        self.packets = [header + body + id.to_bytes(2, "big") + b"x" * PAYLOAD for id in range(1, 65_536)]
        self.packet_size = len(self.packets[0])
        self.next = 0
        self.acknowledged = 0
        self.rest = 0

    def send(self, count: int) -> None:
        """The next ``count`` messages."""
        start, end = self.next, self.next + count
        batch = self.packets[start:end]
        if end >= len(self.packets):
            end -= len(self.packets)
            batch += self.packets[:end]
        self.next = end
        self.transport.write(b"".join(batch))

    def load(self, data: bytes) -> None:
        total = self.rest + len(data)
        count, self.rest = divmod(total, 4)
        self.acknowledged += count
        if count:
            self.send(count)


class Subscriber(Peer):
    """Acknowledges everything."""

    def __init__(self, durable: bool, size: int) -> None:
        connect = encode(Connect(MQTT311, "subscriber", not durable, 0), MQTT311)
        subscribe = encode(Subscribe(1, [Subscription(TOPIC, 1)]), MQTT311)
        super().__init__(connect + subscribe, 9)
        self.size = size
        self.offset = 3 + 2 + len(TOPIC)
        self.received = 0
        self.rest = b""

    def load(self, data: bytes) -> None:
        data = self.rest + data
        count = len(data) // self.size
        end = count * self.size
        self.rest = data[end:]
        if count:
            first = self.offset
            acks = [b"\x40\x02" + data[at : at + 2] for at in range(first, end, self.size)]
            self.received += count
            self.transport.write(b"".join(acks))


async def connect(peer: Peer, port: int) -> None:
    """Connect as soon as the broker listens."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + READY
    while True:
        try:
            await loop.create_connection(lambda: peer, "127.0.0.1", port)
            break
        except OSError:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(0.05)
    async with asyncio.timeout(READY):
        await peer.ready


async def load(port: int, pid: int, durable: bool, seconds: float, in_flight: int) -> tuple[float, float]:
    """Messages per second that arrived, and microseconds of the broker's processor time per message."""
    publisher = Publisher()
    subscriber = Subscriber(durable, publisher.packet_size)
    await connect(subscriber, port)
    await connect(publisher, port)
    process = psutil.Process(pid)
    publisher.send(in_flight)
    await asyncio.sleep(min(1.0, seconds / 2))
    before, began = subscriber.received, time.perf_counter()
    used = sum(process.cpu_times()[:2])
    await asyncio.sleep(seconds)
    count, elapsed = subscriber.received - before, time.perf_counter() - began
    used = sum(process.cpu_times()[:2]) - used
    publisher.transport.abort()
    subscriber.transport.abort()
    return count / elapsed, used / max(1, count) * 1e6


ROWS = {
    "ours, clean session": (start_ours, False),
    "ours, durable session": (start_ours, True),
    "mosquitto, clean session": (start_mosquitto, False),
    "mosquitto, durable session": (start_mosquitto, True),
}


def measure(name: str, seconds: float, in_flight: int, processors: list[int]) -> tuple[float, float]:
    """One row, with a new process."""
    start, durable = ROWS[name]
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, processors[:1])
        process = start(port, Path(folder))
        os.sched_setaffinity(0, processors[-1:])
        try:
            found: tuple[float, float] = uvloop.run(load(port, process.pid, durable, seconds, in_flight))
            return found
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--in-flight", type=int, default=100, help="publishes not yet acknowledged, up to 1000")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve(int(options.serve[0]), Path(options.serve[1])))
        return
    processors = sorted(os.sched_getaffinity(0))[:2]
    how = "compiled" if compiled() else "pure Python"
    rounds = f"{options.rounds} rounds of {options.seconds:g} s"
    print(f"broker: {how}; {options.in_flight} in flight, {rounds}")
    there = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin") is not None
    names = [name for name in ROWS if there or "mosquitto" not in name]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            found[name].append(measure(name, options.seconds, options.in_flight, processors))
    for name in names:
        rates = [rate for rate, _ in found[name]]
        costs = [cost for _, cost in found[name]]
        line = f"{name:28} {statistics.median(rates):9,.0f} msg/s ({min(rates):,.0f} to {max(rates):,.0f})"
        line += f"  {statistics.median(costs):5.1f} us of CPU per message"
        peer = "mosquitto" + name.removeprefix("ours")
        if name.startswith("ours") and peer in found:
            ratios = [mine[0] / theirs[0] for mine, theirs in zip(found[name], found[peer], strict=True)]
            line += f"  {statistics.median(ratios):.1f} x mosquitto"
        print(line)


if __name__ == "__main__":
    main()
