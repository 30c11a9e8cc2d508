"""What bounds clients before they are known: how many are not known yet, and how often they come.

It puts the parts of one node together: never who a client is. What always holds: all listeners of one kind of a node
share one object; other limits are in force at once, and close no connection whose client is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple, final

from mesh.transport.pending import Pending
from mesh.transport.rates import Rates
from mesh.transport.status import ArrivalsStatus

_MANY = 1_000_000


class ArrivalLimits(NamedTuple):
    """``pending``: connections whose CONNECT is not complete; ``node``, ``address``, ``network``: connections a second,
    on average (see ``Rates``). By default all that a listener of the mesh itself needs."""

    pending: int = _MANY
    node: int = _MANY
    address: int = _MANY
    network: int = _MANY


@final
class Arrivals:
    """``connects`` bounds CONNECTs, ``handshakes`` TLS handshakes, by the same limits."""

    __slots__ = ("connects", "handshakes", "pending")

    def __init__(
        self, limits: ArrivalLimits = ArrivalLimits(), clock: Callable[[], float] = time.monotonic  # noqa: B008 - frozen
    ) -> None:
        _, node, address, network = limits
        self.pending = Pending(limits.pending)
        self.connects = Rates(node, address, network, clock)
        self.handshakes = Rates(node, address, network, clock)

    def take(self, limits: ArrivalLimits) -> None:
        """Have these limits from now on."""
        self.pending.limit = limits.pending
        for rates in (self.connects, self.handshakes):
            rates.allow(limits.node, limits.address, limits.network)

    def in_force(self) -> dict[str, object]:
        """All limits, by name."""
        return {"pending": self.pending.limit, "rates": self.connects.in_force()}

    def status(self) -> ArrivalsStatus:
        """The status, for ``mesh status`` and metrics."""
        return ArrivalsStatus(
            len(self.pending), self.pending.closed, self.connects.refusals, self.handshakes.refusals
        )
