"""The seam between a vehicle's connection and its edge.

It knows what the two ask of each other: never how either does it. The device link implements ``EdgePath`` for our own
edges; a relay to a foreign broker can do so without a change to the vehicle. What always holds: a vehicle has at most
one lane, from the moment its edge is known until the connection ends.

Base classes and not ``Protocol``s, for the reason that ``session/store.py`` gives.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from mesh.transport.client import ClientContext, ClientStream
from mesh.wire.tracecontext import TraceContext


@mypyc_attr(allow_interpreted_subclasses=True)
class EdgePath:
    """One vehicle's way to its edge."""

    __slots__ = ()

    def carry(self, packets: list[bytes]) -> bool:
        """Bring whole packets of the vehicle to the edge, now or when it is back. False: enough is held, so the
        vehicle is to send no more until ``Passenger.ease``."""
        raise NotImplementedError

    def free(self) -> bool:
        """Whether there is room again for more of the vehicle's packets."""
        raise NotImplementedError

    def credit(self, size: int) -> None:
        """``size`` bytes from the edge have left towards the vehicle."""
        raise NotImplementedError

    def leave(self) -> None:
        """The vehicle's connection is over."""
        raise NotImplementedError


class VehicleConnection(ClientStream):
    """A vehicle's connection, as an edge sees it.

    ``name`` is the vehicle's identity in the map, and ``epoch`` that of its map record; ``since`` is when the
    connection was accepted, in milliseconds since 1970; ``connect`` the CONNECT packet; ``uncredited`` the bytes from
    the edge for which no credit was given back yet.
    """

    __slots__ = ("connect", "epoch", "name", "since", "uncredited")

    def __init__(self, clients: ClientContext) -> None:
        super().__init__(clients)
        self.name = ""
        self.epoch = 0
        self.since = 0
        self.connect = b""
        self.uncredited = 0

    def welcome(self, keep_alive: int, connack: bytes) -> None:
        """The edge accepts the connection. ``keep_alive``: seconds to enforce."""
        raise NotImplementedError

    def down(self, data: bytes, size: int, count: int) -> None:
        """``data`` for the vehicle. The edge counts it as ``size`` bytes against the credit and as ``count`` packets,
        also where less of it is to be written."""
        raise NotImplementedError

    def traced(self, context: TraceContext, publish: bytes, client_id: str) -> None:
        """``publish``, which comes next, belongs to a sampled trace. ``client_id`` is the one that the edge assigned,
        else empty.
        """
        raise NotImplementedError

    def ease(self) -> None:
        """Less is held than before."""
        raise NotImplementedError

    def shut(self) -> None:
        """The edge ends the connection; what it sent before is still to be written. The lane is no longer there."""
        raise NotImplementedError
