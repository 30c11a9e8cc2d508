"""A flood of connections takes no descriptor that the door needs for its links."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mesh.topology.descriptors import connections, reserve
from mesh.topology.load import loads
from mesh.wire.packets import PUBACK, Publish
from tests.fakes.mesh import FakeMesh
from tests.support.bare import Bare
from tests.support.configs import TOPOLOGY
from tests.support.flood import flood
from tests.support.loop import run
from tests.support.waiting import until

CLIENTS = 100


@contextmanager
def may_open(files: int) -> Iterator[None]:
    """This process may open files up to this number meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def next_descriptor() -> int:
    handle = os.open(os.devnull, os.O_RDONLY)
    os.close(handle)
    return handle


def test_an_edge_that_restarts_during_a_flood_is_linked_again() -> None:
    topology = loads(TOPOLOGY.encode(), "mesh.yaml", Path("."))
    files = reserve(topology) + CLIENTS

    async def main() -> None:
        async with FakeMesh(connections=connections(topology, files)) as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            async with flood(mesh.port, 2 * files):
                await until(lambda: mesh.door.status().clients.listeners[0].refused > 100)
                await mesh.restart_edge()
                await mesh.up()
                car.send(Publish("vehicles/CAR/t", b"x", 1, packet_id=1))
                await car.acked(PUBACK, [1])
                assert len(os.listdir("/proc/self/fd")) < files - 32
            await until(lambda: mesh.door.status().clients.connections == 1)
            await Bare().hello(mesh.port, "OTHER")

    with may_open(files):
        run(main())


def full() -> bool:
    """Whether this process can open nothing."""
    try:
        next_descriptor()
    except OSError:
        return True
    return False


def test_a_door_without_descriptors_goes_on_when_some_are_free() -> None:
    """No limit of this program was reached: another one has taken what the system has."""

    async def main() -> None:
        async with FakeMesh(connections=100_000) as mesh:
            car = await Bare().hello(mesh.port, "CAR")
            await mesh.up()
            with may_open(next_descriptor() + 20):
                async with flood(mesh.port, 100):
                    await until(full)
                    await until(lambda: mesh.door.status().clients.listeners[0].starved > 0)
                    car.send(Publish("vehicles/CAR/t", b"x", 1, packet_id=1))
                    await car.acked(PUBACK, [1])
                await until(lambda: mesh.door.status().clients.connections == 1)
            await Bare().hello(mesh.port, "OTHER")

    run(main())
