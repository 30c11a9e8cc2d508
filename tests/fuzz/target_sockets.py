"""A real mesh under fuzzed sequences through its sockets: the front door, and the core's endpoint.

It checks that every process runs, that none has logged an error and none grows, that the packets on each connection
follow MQTT, and that two other clients (paho), one at the door and one at the core, get all of their own messages.
"""

from __future__ import annotations

import asyncio
import re
from random import Random
from typing import Final

import paho.mqtt.client as paho
import psutil

from tests.fuzz.generate import Cast
from tests.fuzz.guest import Guest
from tests.fuzz.sequences import sequence
from tests.fuzz.target_engine import Tally
from tests.fuzz.watch import Breach, insist
from tests.support.mesh import Mesh
from tests.support.stock import Stock
from tests.support.waiting import until

# For the topology: short sessions and small queues. Otherwise memory grows until the queues of all clients that never
# reconnect are full, which looks like a leak.
LIMITS: Final = "limits: {session_expiry: 5s, queue_messages: 200}"
AT_ONCE: Final = 24  # fuzzed clients
SAMPLES: Final = 10  # memory samples of each process
_PACKETS: Final = 105  # of one sequence
_VEHICLES: Final = tuple(f"F{number}" for number in range(8))
# A line of the runner's log begins with the date, the time and the level.
_ERROR: Final = re.compile(r"^\d{4}-\d\d-\d\d \S+ (ERROR|CRITICAL)", re.MULTILINE)
_TRACEBACK: Final = re.compile(r"^Traceback ", re.MULTILINE)


class Bystanders:
    """A vehicle and a back end, both paho clients. Each gets its own messages and those of the other."""

    def __init__(self) -> None:
        self._car = Stock("bystander", paho.MQTTv311, clean=True)
        self._app = Stock("onlooker", paho.MQTTv5, clean=True)
        self._due: dict[str, list[str]] = {}
        self._count = 0

    def join(self, mesh: Mesh) -> None:
        """Connect and subscribe."""
        self._car.connect(mesh.vehicles)
        self._app.connect(mesh.backends)
        for filter in ("vehicles/bystander/own/#", "vehicles/bystander/cmd/#"):
            self._car.subscribe(filter, 2)
        for filter in ("onlooker/#", "vehicles/bystander/up/#"):
            self._app.subscribe(filter, 2)

    def publish(self) -> None:
        """Publish one message to each of the four topics. Each topic has one QoS: paho delivers QoS 2 at PUBREL, so
        messages of different QoS would lose their order."""
        self._count += 1
        for sender, topic, qos in (
            (self._car, "vehicles/bystander/own/1", 2),
            (self._car, "vehicles/bystander/up/1", 1),
            (self._app, "onlooker/1", 2),
            (self._app, "vehicles/bystander/cmd/1", 1),
        ):
            sender.publish(topic, str(self._count), qos)
            self._due.setdefault(topic, []).append(str(self._count))

    async def check(self) -> int:
        """Check that all messages arrived once and in order, and no client was disconnected; returns their count."""
        published = sum(len(numbers) for numbers in self._due.values())

        def arrived() -> int:
            return len(self._car.received) + len(self._app.received)

        await until(lambda: arrived() >= published, "the messages of the bystanders")
        await until(lambda: self._acked() >= published, "the acknowledgements of the bystanders")
        for topic, numbers in self._due.items():
            both = [*self._car.received, *self._app.received]
            got = [message.payload for message in both if message.topic == topic]
            insist(got == numbers, f"on {topic} came {_difference(got, numbers)}")
        for stock in (self._car, self._app):
            insist(not stock.closes, f"{stock.name} was disconnected: {stock.closes}")
        return published

    def _acked(self) -> int:
        return len(self._car.acked) + len(self._app.acked)

    def leave(self) -> None:
        """DISCONNECT."""
        self._car.leave()
        self._app.leave()


def _difference(got: list[str], due: list[str]) -> str:
    at = next((at for at, (one, other) in enumerate(zip(got, due, strict=False)) if one != other), len(due))
    return f"{got[at : at + 5]} where {due[at : at + 5]} was due, {len(got)} of {len(due)} in all"


class Watchman:
    """Observes the processes of a mesh. ``memory``: samples in bytes, by process."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._names = [*mesh.names(), "etcd"]
        self._pids = {name: mesh.pid(name) for name in self._names}
        self._logs = {name: len(mesh.log(name)) for name in mesh.names()}
        self.memory: dict[str, list[int]] = {name: [] for name in mesh.names()}

    def look(self) -> None:
        """Sample the memory of each process."""
        for name, looks in self.memory.items():
            looks.append(psutil.Process(self._pids[name]).memory_info().rss)

    def check(self, growth: int) -> None:
        """Check that no process was restarted, logged an error, or took ``growth`` bytes more in the second half than
        in the first."""
        for name in self._names:
            pid = self._mesh.pid(name)
            insist(pid == self._pids[name], f"{name} was process {self._pids[name]} and is {pid}")
        for name, start in self._logs.items():
            log = self._mesh.log(name)[start:]
            for pattern in (_ERROR, _TRACEBACK):
                found = pattern.search(log)
                insist(found is None, f"{name} logged: {log[found.start() : found.start() + 3000] if found else ''}")
        for name in self.memory:
            insist(self.grown(name) < growth, f"{name} has grown: {self.memory[name]}")

    def grown(self, name: str) -> int:
        """The peak memory of a process in the second half less the peak in the first, without the first sample."""
        looks = self.memory[name]
        middle = len(looks) // 2
        return max(looks[middle:]) - max(looks[1:middle])


class Crowd:
    """Fuzzed clients, ``AT_ONCE`` of them at a time, at the door and at the core."""

    def __init__(self, mesh: Mesh, seed: int) -> None:
        self._seed = seed
        self._casts = [Cast(f"vehicles/{name}/", (name,)) for name in _VEHICLES]
        # A back end has the whole topic space, and sends commands to vehicles.
        self._apps = [Cast(), Cast(), Cast("vehicles/F1/")]
        self._mesh = mesh
        self.tally = Tally()

    async def run(self, first: int, count: int) -> None:
        """Send ``count`` sequences, numbered from ``first``. Raises ``Breach``."""
        numbers = iter(range(first, first + count))

        async def some() -> None:
            for number in numbers:
                await self._one(number)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(some())

    async def _one(self, number: int) -> None:
        dice = Random(f"{self._seed}:{number}")
        if number % 2:
            cast, port = dice.choice(self._casts), self._mesh.vehicles
        else:
            cast, port = dice.choice(self._apps), self._mesh.backends
        guest = Guest(dice, sequence(dice, cast, _PACKETS), port)
        try:
            await guest.run()
        except Breach as breach:
            way = "the front door" if number % 2 else "the core"
            story = "\n".join(packet.hex() for packet in guest.said)
            raise Breach(f"sequence {self._seed}:{number} at {way}: {breach}\n{story}") from breach
        tally = self.tally
        tally.sequences += 1
        tally.sent += guest.sent
        tally.handled += guest.handled
        tally.refused += guest.refused
        tally.connections += guest.connections


async def fuzz(mesh: Mesh, seed: int, sequences: int, growth: int) -> tuple[Tally, Watchman]:
    """Send ``sequences`` sequences to a mesh that is ready. Raises ``Breach`` or ``AssertionError``."""
    bystanders, crowd, watchman = Bystanders(), Crowd(mesh, seed), Watchman(mesh)
    bystanders.join(mesh)
    try:
        part = max(1, sequences // SAMPLES)
        for first in range(0, sequences, part):
            publishing = asyncio.create_task(_publish(bystanders))
            try:
                await crowd.run(first, min(part, sequences - first))
            except ExceptionGroup as group:
                raise group.exceptions[0] from None
            finally:
                publishing.cancel()
            watchman.look()
        crowd.tally.neighbour = await bystanders.check()
    finally:
        bystanders.leave()
    watchman.check(growth)
    return crowd.tally, watchman


async def _publish(bystanders: Bystanders) -> None:
    """Publish a few messages a second until cancelled."""
    while True:
        bystanders.publish()
        await asyncio.sleep(0.05)
