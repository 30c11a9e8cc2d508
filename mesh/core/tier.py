"""The tier link: this core's MQTT 5 session with one edge.

It combines the client's side of the session, the messages to the edge (``Downstream``), the messages from it
(``EdgeArrivals``) and this core's subscriptions at it (``Following``). It must never know the address of the edge or
how the socket is opened. What always holds: requests and messages reach the edge in the order in which they came to
this core; while the edge is disconnected, messages for it wait in ``Downstream``; its filters are brought up to date
when it is connected again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, final

from mesh.broker.broker import Broker
from mesh.broker.gate import Gate
from mesh.broker.ledger import INSTANCE
from mesh.broker.peer import Peer
from mesh.broker.pressure import FOLLOW
from mesh.broker.principal import GIVEN
from mesh.broker.versions import dated, versioned, withdrawal
from mesh.core.arrivals import EdgeArrivals, packet_id_in
from mesh.core.downstream import IN_FLIGHT, SOCKET, Downstream
from mesh.core.fleet import PORTION, FleetBackfill
from mesh.core.following import Following
from mesh.core.spans import Ends
from mesh.core.spool import Spool
from mesh.core.status import TierLinkStatus
from mesh.core.upstream import Upstream
from mesh.session.application import ClientEvents
from mesh.session.client import ClientSession
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.session.outbound import Delivery
from mesh.session.store import Item
from mesh.transport.status import TIER
from mesh.transport.trail import Trail
from mesh.transport.turn import Turn
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, Connect
from mesh.wire.properties import Properties

KEEP_ALIVE: Final = 10  # seconds; the link drops an edge that is silent for 1.5 times that
_EXPIRY: Final = 7 * 86_400  # seconds that an edge keeps this core's session while the core is disconnected


class Socket(Protocol):
    """The link's view of its socket."""

    @property
    def peer(self) -> Peer:
        """The edge's end of the connection."""

    def established(self) -> None:
        """The edge has accepted this core."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def finish(self) -> None:
        """Write what is pending, then close."""

    def abort(self) -> None:
        """Close at once."""


@final
class TierLink(ClientEvents):
    """``password`` is called for each connection. ``limits`` bound what the edge may send; ``answer``: seconds that it
    has to answer a publish; ``patience``: seconds that messages wait for a vehicle whose queue is full; ``fleet``:
    filters of the fleet's topics; ``trail`` names the packet that is handled. ``flush`` is called at the end of every
    turn."""

    def __init__(
        self, edge: str, core: str, password: Callable[[], bytes], broker: Broker, upstream: Upstream, spool: Spool,
        limits: PacketLimits, answer: float, patience: float, turn: Turn, fleet: tuple[str, ...] = (),
        trail: Trail | None = None,
    ) -> None:
        self.edge = edge
        self.spool = spool
        self.ended = ""  # why this side ended the last connection, to follow the edge's name; empty: it did not
        self._broker = broker
        self._turn = turn
        self._socket: Socket | None = None
        self._told: Delivery | None = None  # says on this connection that the edge has been given all
        self._congested = False  # the edge does not read: the socket's buffer is full
        self._trail = trail
        self._source = f"edge {edge}".encode()
        self._ends = Ends(core)
        self._downstream = Downstream(broker, spool, answer, patience, self._ends)
        self._arrivals = EdgeArrivals(edge, broker, upstream, self._ends, self._downstream.signal, trail)
        self._following = Following(edge, broker, upstream)
        self._backfill = FleetBackfill(edge, broker, fleet)
        self._client = ClientSession(
            self, self._downstream, self._arrivals, self._downstream.outbound, limits, broker.clock
        )
        self._downstream.pump = self._client.pump
        self._client.advance(broker.outbox.durable)
        properties = Properties()
        properties.session_expiry = _EXPIRY
        properties.receive_maximum = IN_FLIGHT
        properties.user = [(INSTANCE, secrets.token_hex(8))]
        self._connect = Connect(MQTT5, core, False, KEEP_ALIVE, core, b"", None, properties)
        self._password = password

    def restore(
        self, spooled: Iterable[Item], filters: dict[str, int], incoming: Iterable[Item], given: Iterable[Item] = ()
    ) -> None:
        """Restore the state of this link from the journal."""
        self._backfill.restore(given)
        self._downstream.restore(spooled)
        self._following.restore(filters)
        for item in incoming:
            self._client.restore(packet_id_in(item), item.id)

    def take(self, answer: float, patience: float, messages: int, size: int, fleet: tuple[str, ...]) -> None:
        """Other values from now on; ``messages`` and ``size`` bound the spool. A filter that is new in ``fleet`` brings
        the edge its retained messages."""
        self._downstream.answer_within = answer
        self._downstream.holding.patience = patience
        self.spool.max_messages = messages
        self.spool.max_bytes = size
        if self._backfill.follow(fleet) and self.up:
            self._backfill.begin(True, self._give)

    def in_force(self) -> dict[str, object]:
        """What holds at present, by name."""
        return {
            "owner_timeout": self._downstream.answer_within, "patience": self._downstream.holding.patience,
            "spool_messages": self.spool.max_messages, "spool_bytes": self.spool.max_bytes,
            "fleet": self._backfill.filters,
        }  # fmt: skip

    def widen(self, size: int) -> None:
        """The edge takes packets of ``size`` bytes, whatever it said when it accepted this core."""
        self._client.widen(size)

    def discard(self) -> Iterator[int]:
        """The mesh does not have the edge now, and its connection was aborted: forget all that is kept for it, in
        slices. What is for a vehicle goes to the dead letters."""
        while self._socket is not None:
            yield 1
        self._client.discard()
        self._following.discard()
        self._backfill.discard()
        yield from self._downstream.discard()

    @property
    def up(self) -> bool:
        """Whether the edge has accepted this core."""
        return self._client.up

    def status(self, trouble: str) -> TierLinkStatus:
        """Figures for ``mesh status`` and metrics. ``trouble``: why there is no connection, if there is none."""
        downstream = self._downstream
        return TierLinkStatus(
            TIER,
            self.edge,
            up=self.up,
            in_flight=len(downstream.outbound.in_flight),
            waiting=len(downstream.outbound.waiting),
            spool=self.spool.messages,
            spool_bytes=self.spool.bytes,
            sent=self._client.sent,
            arrived=self._arrivals.arrived,
            spooled=downstream.spooled,
            rejected=downstream.rejected,
            held=len(downstream.holding),
            pressed=len(downstream.holding.vehicles),
            refused=downstream.holding.refused,
            error=trouble or self._following.refused,
        )

    # From the router and the back ends

    def send(self, message: Message, receipt: Receipt | None) -> None:
        """Send or queue ``message`` for the edge."""
        client = self._client
        if message.qos == 0:
            if self._congested:
                self._broker.courier.dropped(message)
            elif client.up:
                if message.retain and message.payload and self._broker.vehicle_of(message.topic):
                    message = dated(message)
                client.transmit(Delivery(message, 0, message.retain, (), message.received, message.expires), message)
            return
        downstream = self._downstream
        if downstream.withholding and client.up and not downstream.admits(message, receipt):
            return
        if downstream.queue(message, receipt, client.up):
            client.pump()

    def send_retained(self, message: Message, receipt: Receipt | None) -> None:
        """Send a retained message of a fleet-wide topic, or its deletion. A disconnected edge gets one of QoS 0, too:
        when it is back."""
        if message.qos or self._client.up:
            self.send(versioned(message, message.received, False), receipt)
        else:
            self._downstream.give(versioned(message, message.received, True))

    def withdraw(self, topic: str, time: float, fleet: bool) -> bool:
        """Have the edge delete the retained message of ``topic`` that was published at ``time``; the order to do so is
        in the spool then. False if the spool is full."""
        if self._downstream.give(withdrawal(topic, time, fleet, self._broker.clock())) is None:
            return False
        self._client.pump()
        return True

    def _give(self) -> None:
        """Give the edge some of the fleet's retained messages that it does not have."""
        backfill, downstream = self._backfill, self._downstream
        while backfill.active and len(downstream.outbound.waiting) < PORTION:
            message = backfill.next()
            if message is None or downstream.give(message) is None:
                break
            backfill.given()
        self._tell_given()
        self._client.pump()

    def _tell_given(self) -> None:
        """Tell the edge once on each connection, behind all that it is given, that it has been given all."""
        if self.up and self._told is None and self._backfill.complete:
            message = Message(GIVEN, b"", 1, False, b"", self._broker.clock())
            self._told = self._downstream.give(message)

    def want(self, filter: str, gate: Gate) -> None:
        """A back end subscribes: subscribe at the edge; ``gate`` counts the edge until it has answered."""
        if self._client.up:
            for request in self._following.want(filter, gate):
                self._client.request(request)

    def unwant(self, filter: str) -> None:
        """The last back end has unsubscribed from ``filter``."""
        if self._client.up:
            self._client.request(self._following.unwant(filter))

    def has(self, filter: str) -> bool:
        """Whether the edge may have ``filter``."""
        return self._following.has(filter)

    # From the node

    def waits(self) -> bool:
        """Whether something of this link waits for the journal."""
        return self._downstream.waits() or self._client.waits()

    def flush(self) -> None:
        """Write the output of the turn."""
        socket = self._socket
        if socket is not None:
            data = self._client.output()
            if data:
                socket.write(data)
            if self._client.behind:
                self._turn.wake()

    def advance(self) -> None:
        """The journal has advanced: send the messages that waited for it."""
        self._client.advance(self._broker.outbox.durable)
        if self._backfill.active:
            self._give()

    def tick(self) -> None:
        """Called once a second: check that the edge is alive and answers in time."""
        if self._socket is not None:
            self._downstream.tick(self._broker.clock())
            self._client.tick()
            if self._backfill.active or self._told is None:
                self._give()

    def abort(self) -> None:
        """Close the connection at once, if there is one."""
        if self._socket is not None:
            self._socket.abort()

    # From the socket

    def opened(self, socket: Socket) -> None:
        """The socket is open: send CONNECT."""
        self.ended = ""
        self._socket = socket
        self._ends.peer = socket.peer
        self._connect.password = self._password()
        self._client.opened(self._connect)

    def received(self, data: bytes) -> None:
        """Bytes from the edge."""
        trail, client = self._trail, self._client
        if trail is None:
            client.received(data)
            return
        trail.begin(self._source, MQTT5, client.reader, data)
        try:
            client.received(data)
        except Exception:  # not ``finally``: what ends the loop is named
            trail.end()
            raise
        trail.end()

    def congested(self) -> None:
        """The socket's buffer is full: send no message until ``relieved``."""
        self._congested = True
        self._downstream.stop(SOCKET)

    def relieved(self) -> None:
        """The socket's buffer has drained."""
        self._congested = False
        self._downstream.go(SOCKET)
        self._client.pump()

    def lost(self) -> None:
        """The socket is closed."""
        self._socket = None
        self._congested = False
        if self._told is not None and not self._told.item:  # else it is sent again
            self._told = None
        self._client.lost()
        self._following.lost()
        self._backfill.stop()
        self._downstream.lost()

    # From the session

    def accepted(self, session_present: bool) -> None:
        if self._socket is not None:
            self._socket.established()
        self._following.accepted(session_present, self._client.request)
        greeting = self._client.greeting
        self._downstream.accepted(greeting is not None and (FOLLOW, "1") in greeting.user)
        self._backfill.begin(session_present, self._give)
        self._tell_given()

    def closing(self, why: str) -> None:
        self.ended = why
        self.flush()
        if self._socket is not None:
            self._socket.finish()

    def handled(self) -> None:
        if self._trail is not None:
            self._trail.next()
            self._trail.rest()
        self._turn.step()
