"""A real mesh through real sockets: at the core's endpoint, or through the front door to the edge."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from tests.conformance import world
from tests.conformance.world import World
from tests.support.mesh import replaced
from tests.support.processes import Processes
from tests.support.waiting import PATIENCE, wait_until

_IDENTITY = '{from: username, pattern: "[A-Za-z0-9_-]{1,64}", default: suite}'
_EXTRA = f"""\
access:
  vehicles: {{publish: ["#"], subscribe: ["#", "$SYS/#"], refuse: ["{world.REFUSED}"]}}
  backends: {{refuse: ["{world.REFUSED}"]}}
limits:
  max_packet_size: {world.MAX_PACKET}
  receive_maximum: {world.RECEIVE_MAXIMUM}
  backend_receive_maximum: {world.RECEIVE_MAXIMUM}
  in_flight: {world.IN_FLIGHT}
  backend_in_flight: {world.IN_FLIGHT}
  queue_messages: {world.QUEUE}
  backend_queue_messages: {world.QUEUE}
  subscriptions: {world.SUBSCRIPTIONS}
  topic_aliases: {world.ALIASES}
  max_keep_alive: {world.KEEP_ALIVE}s
  session_expiry: {world.SESSION_EXPIRY}s
  shared_patience: {world.SHARED_PATIENCE}s
  connect_timeout: {world.CONNECT_TIMEOUT}s
  attach_grace: {world.ATTACH_GRACE}s
  vehicle_sessions: 100_000  # all clients of the front door are one vehicle
"""


def processes(folder: Path) -> Processes:
    """A mesh with one edge whose clients may use every topic except the refused ones; it runs within ``with``."""
    return Processes(folder, ["edge"], extra=_EXTRA, identity=_IDENTITY, sys_interval=world.SYS_INTERVAL)


class SocketWire:
    """One TCP connection."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)

    def receive(self, patience: float) -> bytes | None:
        self._socket.settimeout(patience)
        try:
            data = self._socket.recv(65_536)
        except TimeoutError:
            return None
        except ConnectionError:
            data = b""
        if not data:
            self._socket.close()
        return data

    def close(self) -> None:
        self._socket.close()


class SocketWorld(World):
    """``core`` or ``door`` of a running mesh."""

    def __init__(self, name: str, mesh: Processes) -> None:
        self.name = name
        self.mesh = mesh

    @property
    def port(self) -> int:
        return self.mesh.backends if self.name == "core" else self.mesh.vehicles

    def wire(self) -> SocketWire:
        return SocketWire(self.port)

    def elapse(self, seconds: float) -> None:
        time.sleep(seconds)

    def crash(self) -> None:
        names = ["core"] if self.name == "core" else ["edge", "door"]
        before = {name: self.mesh.pid(name) for name in names}
        self.mesh.kill(*names)
        wait_until(lambda: replaced(self.mesh, before), f"{names} running again after the kill")
