"""An edge whose process crashes or hangs while it handles certain payloads: as ``runner.py``, with the same arguments.

Hanging, it holds the interpreter lock, as compiled code does.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # for the package of the tests; it runs with -P

from mesh.broker.api import BrokerApi
from mesh.broker.peer import Peer
from mesh.broker.principal import Principal
from mesh.broker.session import Connection
from mesh.broker.shell import Flushable
from mesh.edge.node import EdgeNode
from mesh.node.config import NodeConfig
from mesh.node.ending import Ending
from mesh.wire.packets import Connect, Packet, Publish
from tests.support.runner import own_folder, run

CRASH = b"crash"
HANG = b"hang"
HUNG_AFTER = 2.0  # seconds; a node has ten times as long


class Mortal(BrokerApi):
    """A broker that passes all calls to another one, except for the payloads ``CRASH`` and ``HANG``."""

    def __init__(self, broker: BrokerApi) -> None:
        self._broker = broker

    def open(self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable) -> Connection:
        return self._broker.open(connect, principal, peer, shell)

    def attach(
        self, connect: Connect, principal: Principal, peer: Peer, shell: Flushable, unacked: list[int]
    ) -> Connection:
        return self._broker.attach(connect, principal, peer, shell, unacked)

    def entitle(self, connection: Connection, roles: tuple[str, ...]) -> None:
        self._broker.entitle(connection, roles)

    def live(self, connection: Connection) -> None:
        self._broker.live(connection)

    def receive(self, connection: Connection, packet: Packet) -> None:
        if isinstance(packet, Publish) and packet.payload == CRASH:
            signal.raise_signal(signal.SIGSEGV)
        if isinstance(packet, Publish) and packet.payload == HANG:
            ctypes.PyDLL(None).sleep(600)
        self._broker.receive(connection, packet)

    def set_aside(self, connection: Connection, packet: Packet) -> None:
        self._broker.set_aside(connection, packet)

    def fail(self, connection: Connection, reason: int, why: str = "") -> None:
        self._broker.fail(connection, reason, why)

    def lost(self, connection: Connection) -> None:
        self._broker.lost(connection)

    def pause(self, connection: Connection) -> None:
        self._broker.pause(connection)

    def resume(self, connection: Connection) -> None:
        self._broker.resume(connection)


def make(config: NodeConfig) -> EdgeNode:
    """An edge whose vehicles' and cores' packets go to a mortal broker."""
    node: Any = EdgeNode(config)
    made, made_endpoint = node._make_devices, node._make_endpoint

    def make_devices(host: Any, port: int) -> Any:
        return made(
            SimpleNamespace(broker=Mortal(host.broker), journal=host.journal, turn=host.turn, wheel=host.wheel), port
        )

    def make_endpoint(host: Any, port: int) -> Any:
        return made_endpoint(SimpleNamespace(broker=Mortal(host.broker), turn=host.turn, wheel=host.wheel), port)

    node._make_devices = make_devices
    node._make_endpoint = make_endpoint
    edge: EdgeNode = node
    return edge


if __name__ == "__main__":
    ending = Ending(own_folder())
    ending.watch()
    run(make, lambda: ending.alive(HUNG_AFTER))
    ending.stopped()
