"""A well-behaved vehicle and a well-behaved back end, in a process of their own: what do they notice of an attack?

The back end sends the vehicle a command every ``PERIOD`` seconds, the vehicle answers with a report, both with QoS 1
and durable sessions; the time from the PUBLISH of the command to the report is a round trip. Both reconnect when they
are closed, and send again what was not acknowledged. They run apart from the attack, whose work would delay them.

    python -P -m tests.attacks.bystanders HOST:PORT HOST:PORT VEHICLE

A line on the standard input starts the measurement anew (``begin``) or ends it (``end``); the answer to ``end`` is one
line of JSON: ``sent``, ``answered``, ``lost`` (acknowledged, and no report came), ``closes``, and the round trips
``p50``, ``p99`` and ``worst`` in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Final, final

from mesh.wire.packets import MQTT5, PUBACK, Ack, Publish, SubAck, Subscribe, Subscription
from tests.attacks.raw import Address, Raw

PERIOD: Final = 0.025
WAIT: Final = 60.0  # seconds for the last reports
_PAUSE: Final = 0.2  # before a new connection
_EXPIRY: Final = 3600


@final
class Bystander:
    """One client, over all its connections. ``unanswered`` are its publishes without PUBACK, by identifier."""

    def __init__(self, address: Address, client_id: str, user: str | None, filter: str) -> None:
        self.ready = asyncio.Event()
        self.closes = 0
        self.acknowledged: set[int] = set()
        self.unanswered: dict[int, tuple[int, Publish]] = {}
        self.on_message: Callable[[bytes], None] = _ignore
        self._address = address
        self._client_id = client_id
        self._user = user
        self._filter = filter
        self._raw: Raw | None = None
        self._id = 0

    async def run(self) -> None:
        """Connect, and again whenever the connection ends, until cancelled."""
        while True:
            try:
                async with await Raw.dial(self._address, MQTT5) as raw:
                    await self._talk(raw)
            except (OSError, TimeoutError):
                pass
            self._raw = None
            self.closes += 1
            await asyncio.sleep(_PAUSE)

    async def _talk(self, raw: Raw) -> None:
        answer = await raw.connect(self._client_id, self._user, clean=False, expiry=_EXPIRY)
        if answer is None or answer.reason:
            return
        raw.say(Subscribe(1, [Subscription(self._filter, 1)]))
        self._raw = raw
        for _, again in self.unanswered.values():
            again.dup = True
            raw.say(again)
        while not raw.ended:
            packet = await raw.next()
            if isinstance(packet, Publish):
                if packet.qos:
                    raw.say(Ack(PUBACK, packet.packet_id))
                self.on_message(packet.payload)
            elif isinstance(packet, Ack) and packet.packet_id in self.unanswered:
                number, _ = self.unanswered.pop(packet.packet_id)
                if packet.reason < 0x80:
                    self.acknowledged.add(number)
            elif isinstance(packet, SubAck):
                self.ready.set()

    def publish(self, topic: str, number: int) -> None:
        """Publish with QoS 1, now or on the next connection."""
        self._id = self._id % 60_000 + 2  # 1 is that of SUBSCRIBE
        packet = Publish(topic, b"%d" % number, 1, packet_id=self._id)
        self.unanswered[self._id] = number, packet
        if self._raw is not None:
            self._raw.say(packet)


@final
class Pair:
    """The two, and the round trips since the last ``begin``."""

    def __init__(self, door: Address, core: Address, vehicle: str) -> None:
        self._command = f"vehicles/{vehicle}/cmd/bystander"
        report = f"vehicles/{vehicle}/report/bystander"
        self.vehicle = Bystander(door, vehicle, vehicle, self._command)
        self.backend = Bystander(core, f"backend-of-{vehicle}", None, report)
        self.vehicle.on_message = lambda payload: self.vehicle.publish(report, int(payload))
        self.backend.on_message = self._arrived
        self._sent: dict[int, float] = {}
        self._trips: dict[int, float] = {}
        self._number = 0
        self._first = 0
        self._closes = 0

    async def send(self) -> None:
        """Send commands until cancelled."""
        while True:
            self._number += 1
            self._sent[self._number] = time.monotonic()
            self.backend.publish(self._command, self._number)
            await asyncio.sleep(PERIOD)

    def _arrived(self, payload: bytes) -> None:
        number = int(payload)
        sent = self._sent.get(number)
        if sent is not None and number not in self._trips:
            self._trips[number] = time.monotonic() - sent

    def begin(self) -> None:
        """Count from now on."""
        self._first = self._number + 1
        self._closes = self.vehicle.closes + self.backend.closes

    async def end(self) -> dict[str, float]:
        """Wait for the reports that are under way; the counts since ``begin``."""
        last = self._number
        numbers = range(self._first, last + 1)
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline and any(number not in self._trips for number in numbers):
            await asyncio.sleep(PERIOD)
        trips = sorted(self._trips[number] for number in numbers if number in self._trips)
        lost = [one for one in numbers if one in self.backend.acknowledged and one not in self._trips]
        return {
            "sent": len(numbers),
            "answered": len(trips),
            "lost": len(lost),
            "closes": self.vehicle.closes + self.backend.closes - self._closes,
            "p50": _percentile(trips, 0.50),
            "p99": _percentile(trips, 0.99),
            "worst": _percentile(trips, 1.0),
        }


def _percentile(trips: list[float], share: float) -> float:
    """In milliseconds; of no round trips: -1."""
    return round(1000 * trips[min(len(trips) - 1, int(share * len(trips)))], 1) if trips else -1.0


def _ignore(_payload: bytes) -> None:
    """Nothing is expected yet."""


async def main(door: Address, core: Address, vehicle: str) -> None:
    """Serve the lines of the standard input until it ends."""
    pair = Pair(door, core, vehicle)
    tasks = [asyncio.create_task(pair.vehicle.run()), asyncio.create_task(pair.backend.run())]
    await asyncio.gather(pair.vehicle.ready.wait(), pair.backend.ready.wait())
    tasks.append(asyncio.create_task(pair.send()))
    print("ready", flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := (await lines.readline()).strip():
        if line == b"begin":
            pair.begin()
            print("begun", flush=True)
        else:
            print(json.dumps(await pair.end()), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def address(text: str) -> Address:
    """``HOST:PORT``."""
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    asyncio.run(main(address(sys.argv[1]), address(sys.argv[2]), sys.argv[3]))
