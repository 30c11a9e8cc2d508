"""How often clients may connect: to a node, from an address, from a network.

It knows addresses and times: never who a client is. What always holds: what is refused takes nothing, so a client that
is refused is let in as soon as there is room; all tables are bounded (``Buckets``). Each process has tables of its own:
replicas that share an address on one machine share the connections too, in the kernel, so together they let in up to as
many times the limits as there are replicas.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, final

from mesh.transport.buckets import Buckets
from mesh.transport.origin import host_of, network_of
from mesh.transport.refusal import Refused
from mesh.wire.reasons import CONNECTION_RATE_EXCEEDED

BURST: Final = 20.0
"""Seconds: after a quiet time, as many connect at once as may in this time. A city's vehicles come back together after
a fault of a network, and many of them have one address."""


@final
class Rates:
    """``node``, ``address`` and ``network``: how many connections a second, on average. ``refusals`` counts."""

    __slots__ = ("_addresses", "_clock", "_networks", "_node", "refusals")

    def __init__(
        self, node: int = 1_000_000, address: int = 1_000_000, network: int = 1_000_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._node = Buckets(_burst(node), BURST)
        self._addresses = Buckets(_burst(address), BURST)
        self._networks = Buckets(_burst(network), BURST)
        self.refusals = 0

    def allow(self, node: int, address: int, network: int) -> None:
        """Other limits from now on; connections that came before still count."""
        self._node.allow(_burst(node))
        self._addresses.allow(_burst(address))
        self._networks.allow(_burst(network))

    def in_force(self) -> dict[str, object]:
        """Connections at once, by what they have in common."""
        return {
            "node": self._node.most, "address": self._addresses.most, "network": self._networks.most,
        }  # fmt: skip

    def check(self, address: str) -> None:
        """A client connects from an address (see ``Peer``). Raises ``Refused`` with 0x9F if it comes too early."""
        now = self._clock()
        host, network = host_of(address), network_of(address)
        wait = self._addresses.wait(host, now)
        if wait > 0:
            raise self._refused(f"from {address or 'this machine'}", wait)
        wait = self._networks.wait(network, now)
        if wait > 0:
            raise self._refused(f"from the network {network}", wait)
        wait = self._node.wait("", now)
        if wait > 0:
            raise self._refused("to this node", wait)
        self._addresses.take(host, now)
        self._networks.take(network, now)
        self._node.take("", now)

    def _refused(self, what: str, wait: float) -> Refused:
        self.refusals += 1
        return Refused(
            CONNECTION_RATE_EXCEEDED, f"too many connections {what}; the next one is let in after {wait:.1f} s"
        )


def _burst(rate: int) -> int:
    return max(1, int(rate * BURST))
