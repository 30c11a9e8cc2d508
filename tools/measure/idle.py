"""What an idle vehicle takes of the memory of a front door, by its way in: TLS, TLS with client certificates, WebSocket
over TLS.

Each way has a mesh of its own, as `mesh up` starts it, and vehicles with keep alive that are connected one after
another. The first ones do not count: they fill caches. Memory is what the system divides among processes (PSS); the
exit code is 1 if a way takes more than is allowed.

    ./scripts/measure idle [--ways mqtts,mutual,wss]
"""

from __future__ import annotations

import argparse
import os
import socket
import ssl
import sys
import time
from typing import Final, NamedTuple

from mesh.bench.usage import memory_of
from mesh.cluster.host import all_file_descriptors
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT311, Connect
from tools.benchmark.secured import MUTUAL, TLS, WEBSOCKET, Certificates
from tools.benchmark.systems import Address, Ours

FIRST: Final = 500
SETTLED: Final = 3.0  # seconds
_CONNACK: Final = b"\x20\x02\x00\x00"
_PER_ADDRESS: Final = 5000  # connections from one local address
_KEEP_ALIVE: Final = 3600
_REQUEST: Final = (
    b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
)


class Way(NamedTuple):
    """``most``: kilobytes of one vehicle in the door."""

    tls: str
    vehicles: int
    most: float


WAYS: Final = {
    "mqtts": Way(TLS, 10_000, 30.0), "mutual": Way(MUTUAL, 10_000, 40.0), "wss": Way(WEBSOCKET, 5_000, 35.0),
}  # fmt: skip


class Vehicles:
    """Vehicles of one way, which stay connected."""

    def __init__(self, way: Way, files: Certificates, door: Address) -> None:
        self._way = way
        self._door = door
        self._context = ssl.create_default_context(cafile=files.authority)
        if way.tls == MUTUAL:
            self._context.load_cert_chain(files.client_cert, files.client_key)
        self._sockets: list[ssl.SSLSocket] = []

    def connect(self, count: int) -> None:
        """So many more. Raises ``OSError``, or ``RuntimeError`` if one is refused."""
        for _ in range(count):
            number = len(self._sockets)
            own = f"127.0.1.{1 + number // _PER_ADDRESS}"
            plain = socket.create_connection(self._door, 10.0, (own, 0))
            self._sockets.append(self._context.wrap_socket(plain, server_hostname="localhost"))
            self._hello(self._sockets[-1], f"BENCH{number:07}")

    def _hello(self, sock: ssl.SSLSocket, name: str) -> None:
        packet = encode(Connect(MQTT311, name, True, _KEEP_ALIVE, name), MQTT311)
        expected = _CONNACK
        if self._way.tls == WEBSOCKET:
            sock.sendall(_REQUEST)
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += _some(sock)
            if not answer.startswith(b"HTTP/1.1 101"):
                raise RuntimeError(f"the upgrade was answered with {answer[:40]!r}")
            packet = bytes([0x82, 0x80 | len(packet)]) + bytes(4) + packet  # a mask of zeros
            expected = bytes([0x82, len(_CONNACK)]) + _CONNACK
        sock.sendall(packet)
        answer = b""
        while len(answer) < len(expected):
            answer += _some(sock)
        if answer != expected:
            raise RuntimeError(f"CONNECT was answered with {answer.hex()}")

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def _some(sock: ssl.SSLSocket) -> bytes:
    data = sock.recv(4096)
    if not data:
        raise RuntimeError("the front door closed the connection of a new vehicle")
    return data


def measured(way: Way) -> float:
    """Bytes of one vehicle in the door."""
    mesh = Ours(tls=way.tls)
    try:
        mesh.start(os.sched_getaffinity(0))
        assert mesh.certificates is not None
        vehicles = Vehicles(way, mesh.certificates, mesh.vehicles)
        door = mesh.watched["door"]

        def memory() -> int:
            time.sleep(SETTLED)
            return memory_of([door])[door]

        try:
            vehicles.connect(FIRST)
            before = memory()
            vehicles.connect(way.vehicles - FIRST)
            return (memory() - before) / (way.vehicles - FIRST)
        finally:
            vehicles.close()
    finally:
        mesh.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="scripts/measure idle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ways", default=",".join(WAYS), help="only these, as A,B")
    options = parser.parse_args()
    all_file_descriptors()
    good = True
    for name in options.ways.split(","):
        way = WAYS[name]
        each = measured(way) / 1000
        good = good and each <= way.most
        allowed = f"{way.most:g} allowed"
        print(f"{name:8} {way.vehicles:,} idle vehicles: {each:.1f} KB each in the door ({allowed})", flush=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
