"""The interface between a vehicle's connection and its edge.

It knows the calls of the two: never how either implements them. The device link implements ``EdgePath`` for the edges
of the mesh; a relay to another broker can implement it without a change to the vehicle. What always holds: a vehicle
has at most one path, from the moment its edge is known until the connection ends.

Base classes and not ``Protocol``s, for the reason that ``session/store.py`` gives.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from mesh.broker.claim import Claim
from mesh.transport.client import ClientContext, ClientStream
from mesh.wire.tracecontext import TraceContext


@mypyc_attr(allow_interpreted_subclasses=True)
class EdgePath:
    """The path of one vehicle to its edge."""

    __slots__ = ()

    def carry(self, packets: list[bytes]) -> bool:
        """Send whole packets of the vehicle to the edge, now or when it is connected again. False: the limit of held
        bytes is reached, so the vehicle must not be read until ``VehicleConnection.ease``."""
        raise NotImplementedError

    def free(self) -> bool:
        """Whether more of the vehicle's packets are accepted again."""
        raise NotImplementedError

    def credit(self, size: int) -> None:
        """``size`` bytes from the edge were written to the vehicle."""
        raise NotImplementedError

    def assigned(self) -> str:
        """The client id that the edge assigned; empty if it has assigned none."""
        raise NotImplementedError

    def conclude(self) -> None:
        """The vehicle's connection is about to end, and its will must not be published. ``leave`` follows."""
        raise NotImplementedError

    def entitle(self) -> None:
        """The vehicle has other ``roles`` than before."""
        raise NotImplementedError

    def leave(self) -> None:
        """The vehicle's connection has ended."""
        raise NotImplementedError


class VehicleConnection(ClientStream):
    """A vehicle's connection, as an edge sees it.

    ``name`` is the vehicle's identity in the map, ``claim`` what admitted it, ``roles`` are those that it has at
    present, and ``epoch`` is the epoch of its map record; ``since`` is the time when the connection was accepted, in
    milliseconds since 1970; ``connect`` the CONNECT packet; ``uncredited`` the bytes from the edge for which no credit
    was given back yet.
    """

    __slots__ = ("claim", "connect", "epoch", "name", "roles", "since", "uncredited")

    def __init__(self, clients: ClientContext) -> None:
        super().__init__(clients)
        self.name = ""
        self.claim: Claim | None = None  # from the moment at which its identity is known
        self.roles: tuple[str, ...] = ()
        self.epoch = 0
        self.since = 0
        self.connect = b""
        self.uncredited = 0

    def welcome(self, keep_alive: int, connack: bytes) -> None:
        """The edge accepts the connection. ``keep_alive`` is to be enforced, in seconds."""
        raise NotImplementedError

    def down(self, data: bytes, size: int, count: int) -> None:
        """Write ``data`` to the vehicle. The edge counts ``size`` bytes against the credit, and ``count`` packets, even
        if ``data`` is shorter."""
        raise NotImplementedError

    def traced(self, context: TraceContext, publish: bytes, client_id: str) -> None:
        """The next packet, ``publish``, belongs to a sampled trace. ``client_id`` is the one that the edge assigned,
        else empty."""
        raise NotImplementedError

    def ease(self) -> None:
        """Fewer bytes are held than before."""
        raise NotImplementedError

    def shut(self) -> None:
        """The edge ends the connection: write what it sent before, and close. The path must not be used after this."""
        raise NotImplementedError
