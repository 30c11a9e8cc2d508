"""Free ports of this machine for the processes of a test.

The registry room's search for etcd finds them: below the range that the kernel uses for outgoing connections, so
that no connection takes a port before the test listens on it.
"""

from __future__ import annotations

import socket

from mesh.registry.embedded import free_ports


def free_port() -> int:
    """A port of 127.0.0.1 on which no process listens."""
    (port,) = free_ports(1)
    return port


def free_range(count: int) -> int:
    """The first of ``count`` ports in a row on which no process listens."""
    while True:
        first = free_port()
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except (OSError, OverflowError):
            continue
        return first


__all__ = ["free_port", "free_ports", "free_range"]
