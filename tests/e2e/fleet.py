"""Vehicles and back ends with traffic in both directions, and the checks of their records."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Protocol

import paho.mqtt.client as paho

from mesh.wire.packets import MQTT5
from tests.e2e.checker import check_kept, check_once, check_repeats, missing
from tests.support.client import Client, Received, device
from tests.support.mesh import Mesh
from tests.support.stock import Stock
from tests.support.waiting import until

STOCK = 10  # vehicles that are paho clients
ROUND = 0.4  # seconds between two reports of a vehicle, and between two commands to it
SLICE = 20  # vehicles that publish and get commands in one burst


def command(vehicle: str) -> str:
    return f"vehicles/{vehicle}/cmd/go"


def report(vehicle: str) -> str:
    return f"vehicles/{vehicle}/status"


class Vehicle(Protocol):
    """The records that both kinds of clients keep."""

    name: str
    received: list[Received]
    closes: list[str]

    @property
    def acked(self) -> list[tuple[str, str]]: ...


def _all_there(sent: list[tuple[str, str]], vehicle: Vehicle) -> bool:
    return not missing(sent, vehicle.received)


class Fleet:
    """``cars`` and ``stock`` are vehicles; ``sender`` commands them, ``reader`` reads ``vehicles/+/status``.

    Every third vehicle exchanges QoS 2, the others QoS 1.
    """

    def __init__(self, mesh: Mesh, prefix: str, count: int, stock: int = STOCK) -> None:
        self.mesh = mesh
        self.cars = [device(f"{prefix}-{number:03}", number) for number in range(count - stock)]
        kinds = [(version, clean) for version in (paho.MQTTv311, paho.MQTTv5) for clean in (True, False)]
        self.stock = [Stock(f"{prefix}-paho-{number}", *kinds[number % 4]) for number in range(stock)]
        self.names = [car.name for car in self.cars] + [car.name for car in self.stock]
        self.qos = {name: 2 if number % 3 == 2 else 1 for number, name in enumerate(self.names)}
        self.sender = Client(f"{prefix}-sender", MQTT5, clean=True, expiry=3600)
        self.reader = Client(f"{prefix}-reader", MQTT5, clean=True, expiry=3600)
        self.repeats_without_dup = False  # True: publishers may repeat messages, which are new to the mesh
        self._round = 0

    @property
    def all_vehicles(self) -> Sequence[Vehicle]:
        """All vehicles, of both kinds of clients."""
        return [*self.cars, *self.stock]

    @property
    def edge_of(self) -> dict[str, str]:
        return self.mesh.owners(self.names)

    async def connect(self) -> None:
        """Connect and subscribe all vehicles and back ends."""
        await self.reader.connect(self.mesh.backends)
        await self.reader.subscribe("vehicles/+/status", qos=2)
        await self.sender.connect(self.mesh.backends)
        for start in range(0, len(self.cars), 50):
            await asyncio.gather(*(self._join(car) for car in self.cars[start : start + 50]))
        for car in self.stock:
            await asyncio.to_thread(car.connect, self.mesh.vehicles)
            await asyncio.to_thread(car.subscribe, f"vehicles/{car.name}/cmd/#", self.qos[car.name])

    async def _join(self, car: Client) -> None:
        await car.connect(self.mesh.vehicles)
        await car.subscribe(f"vehicles/{car.name}/cmd/#", qos=self.qos[car.name])

    @contextlib.asynccontextmanager
    async def traffic(self) -> AsyncIterator[None]:
        """Exchange commands and reports while the block runs; then wait for all of them and check them."""
        task = asyncio.create_task(self._flow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.settle()
        self.check()

    async def _flow(self) -> None:
        while True:
            self._round += 1
            number = str(self._round)
            for start in range(0, len(self.names), SLICE):
                for name in self.names[start : start + SLICE]:
                    self.sender.publish(command(name), number, self.qos[name])
                for car in self.cars[start : start + SLICE]:
                    car.publish(report(car.name), number, self.qos[car.name])
                for stock in self.stock[start : start + SLICE]:
                    stock.publish(report(stock.name), number, self.qos[stock.name])
                await asyncio.sleep(ROUND * SLICE / len(self.names))

    async def rounds(self, count: int) -> None:
        """Wait until the traffic has run for this many further rounds and has arrived."""
        last = self._round + count
        await until(lambda: self._round >= last, "traffic")
        await until(
            lambda: all(any(int(item.payload) >= last for item in car.received[-50:]) for car in self.all_vehicles),
            "commands of a later round at every vehicle",
        )

    async def settle(self) -> None:
        """Wait until every message is acknowledged and has arrived."""
        await self.sender.settled()
        for car in self.cars:
            await car.settled()
        await until(lambda: all(len(car.acked) == len(car.published) for car in self.stock), "paho's acknowledgements")
        for vehicle in self.all_vehicles:
            sent = [message for message in self.sender.acked if message[0] == command(vehicle.name)]
            await until(partial(_all_there, sent, vehicle), f"commands at {vehicle.name}")
        everything = [message for car in self.all_vehicles for message in car.acked]
        try:
            await until(lambda: not missing(everything, self.reader.received), "reports at the back end")
        except AssertionError as error:
            lost = missing(everything, self.reader.received)
            figures = {name: self.mesh.figures(name) for name in self.mesh.names()}
            raise AssertionError(f"{error}: {len(lost)} missing, for example {lost[:5]}; {figures}") from error

    def check(self) -> None:
        """No acknowledged message is missing, order holds, QoS 2 came once, repeats have DUP, no socket was closed."""
        reports: dict[str, list[Received]] = {name: [] for name in self.names}
        for message in self.reader.received:
            name = message.topic.split("/")[1]
            if name in reports:
                reports[name].append(message)
        for car in self.all_vehicles:
            name = car.name
            assert not car.closes, f"the socket of {name} was closed: {car.closes}"
            sent = [message for message in self.sender.acked if message[0] == command(name)]
            check_kept(sent, car.received, name)
            check_kept(car.acked, reports[name], f"the back end, from {name}")
            if self.qos[name] == 2:
                check_once(sent, car.received, name)
                check_once(car.acked, reports[name], f"the back end, from {name}")
            elif not self.repeats_without_dup:
                check_repeats(car.received, name)
        for client in self.cars:
            assert not client.refused, f"reports of {client.name} were refused: {client.refused[:3]}"
        assert not self.sender.refused, f"commands were refused: {self.sender.refused[:3]}"

    async def leave(self) -> None:
        """Disconnect all vehicles and back ends."""
        for car in [*self.cars, self.sender, self.reader]:
            car.leave()
        for stock in self.stock:
            await asyncio.to_thread(stock.leave)
