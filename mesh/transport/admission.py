"""The checks that every connection must pass at a listener, when it begins and by its CONNECT, before the client is
identified.

It knows the limits of packets, connections and rates, redirection, the authentication methods, and that some clients
are kept out: never identities. What always holds: a client that names a method is not let in before it completes that
method.
"""

from __future__ import annotations

from typing import final

from mypy_extensions import mypyc_attr

from mesh.broker.peer import Peer
from mesh.transport.arrivals import Arrivals
from mesh.transport.authentication import Authentication, Methods
from mesh.transport.refusal import Refused
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import Connect
from mesh.wire.reasons import SERVER_BUSY, USE_ANOTHER_SERVER


@mypyc_attr(allow_interpreted_subclasses=True)
class Barrier:
    """Keeps clients out whatever they can prove, such as banned ones. ``up``: whether there may be any; the default
    keeps none out."""

    def __init__(self) -> None:
        self.up = False

    def arrive(self, peer: Peer) -> None:
        """A connection begins. Raises ``Refused`` if no client may come from there."""

    def check(self, connect: Connect, peer: Peer, kind: str = "", name: str = "") -> None:
        """Raises ``Refused`` for a client that is kept out. ``kind`` is that of its ``name``, vehicle or user; both are
        empty for a client that is not identified."""


@final
class Admission:
    """``limits`` bound what a client may send; ``most`` is the limit of open connections; ``redirect`` is the server
    that clients are sent to (empty: they may stay); ``methods`` are those of enhanced authentication; ``arrivals``
    bounds clients that are not known yet; ``barrier`` keeps clients out."""

    __slots__ = ("arrivals", "barrier", "limits", "methods", "most", "redirect")

    def __init__(
        self, limits: PacketLimits, most: int, redirect: str = "", methods: Methods | None = None,
        arrivals: Arrivals | None = None, barrier: Barrier | None = None,
    ) -> None:
        self.limits = limits
        self.most = most
        self.redirect = redirect
        self.methods = methods or Methods()
        self.arrivals = arrivals or Arrivals()
        self.barrier = Barrier() if barrier is None else barrier  # a barrier may be an empty collection

    def arrive(self, peer: Peer) -> None:
        """Check a connection of which only the peer is known, before it costs more than that. Raises ``Refused`` if no
        client may come from there; CONNECT would be refused too."""
        self.barrier.arrive(peer)
        self.methods.arrive(peer)

    def check(self, connect: Connect, present: int, peer: Peer) -> Authentication | None:
        """Check a CONNECT from ``peer`` while ``present`` connections are open, its own included. Returns the
        authentication that the client must complete first, if any. Raises ``Refused``."""
        if self.barrier.up:
            self.barrier.check(connect, peer)
        if self.redirect:
            raise Refused(USE_ANOTHER_SERVER, "clients are sent to another server", self.redirect)
        if present > self.most:
            raise Refused(SERVER_BUSY, f"all {self.most} connections are in use")
        self.arrivals.connects.check(peer.address)
        properties = connect.properties
        method = None if properties is None else properties.auth_method
        if method is not None:
            return Authentication(self.methods, method, connect, peer)
        return None
