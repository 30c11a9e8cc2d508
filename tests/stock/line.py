"""A TCP line between a client and the mesh that a test can cut, as a tunnel does.

It knows bytes and sockets. It must never know MQTT. A cut closes both sockets of every connection without DISCONNECT.
"""

from __future__ import annotations

import contextlib
import socket
import threading

CHUNK = 1 << 16


class Line:
    """Forwards ``port`` to the port ``target`` of this machine."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._dead = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, dead: bool = False) -> None:
        """Close all connections; while the line is ``dead``, close new ones at once."""
        with self._lock:
            self._dead = dead
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _end(*pair)

    def mend(self) -> None:
        """Forward new connections again."""
        with self._lock:
            self._dead = False

    def close(self) -> None:
        """Close the listener and all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut(dead=True)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                self._join(near)
            except OSError:
                near.close()

    def _join(self, near: socket.socket) -> None:
        far = socket.create_connection(("127.0.0.1", self._target))
        with self._lock:
            dead = self._dead
            if not dead:
                self._pairs.append((near, far))
        if dead:
            _end(near, far)
            return
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    _end(source, sink)


def _end(*pair: socket.socket) -> None:
    for end in pair:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
