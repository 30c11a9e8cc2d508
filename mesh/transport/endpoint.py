"""An MQTT endpoint: the sockets of clients that connect to the broker of this process.

The core uses it for back ends, the edge for tier links. It knows sockets and the broker: never topics, sessions or
messages. What always holds:

* no packet of a client reaches the broker before ``authenticate`` has named its principal;
* packets of a client reach the broker in the order in which they came, and a malformed packet ends the connection after
  the packets before it were handled;
* after every call of the broker the turn is woken, so that all output is written;
* a packet in whose handling the processes before this one have ended is put aside (``trail``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import final

from mesh.broker.api import BrokerApi
from mesh.broker.claim import Claim
from mesh.broker.notices import Notices
from mesh.broker.peer import Peer
from mesh.broker.principal import Principal
from mesh.broker.roles import RolesOf, roles_of_claim
from mesh.broker.session import Connection
from mesh.journal.errors import JournalError
from mesh.transport.admission import Admission
from mesh.transport.authentication import Later
from mesh.transport.buffers import Buffers
from mesh.transport.client import PACKET_RATE, ClientContext, ClientStream
from mesh.transport.listen import Listen
from mesh.transport.listeners import ListenerChange, Listeners
from mesh.transport.refusal import Refused
from mesh.transport.states import WAITING
from mesh.transport.status import SocketsStatus
from mesh.transport.stream import (
    EAGER,
    HOLD_BROKER,
    HOLD_IDENTITY,
    HOLD_NODE,
    HOLD_WRITING,
    PORTION,
    Stream,
    StreamGroup,
)
from mesh.transport.trail import Trail
from mesh.transport.turn import Turn
from mesh.transport.unixsocket import UnixPath, no_unix_path
from mesh.transport.waiting import until
from mesh.transport.wheel import Wheel
from mesh.wire.decode import SERVER, Reader
from mesh.wire.packets import Auth, Connect, Packet
from mesh.wire.reasons import (
    IMPLEMENTATION_SPECIFIC_ERROR,
    SERVER_UNAVAILABLE,
    name_of,
)

log = logging.getLogger(__name__)

Authenticate = Callable[[Connect, Peer, Claim | None], "Awaitable[Principal] | Principal"]


@final
class EndpointClient(ClientStream):
    """One client's socket: the shell of its ``Connection``. ``connection`` is set from WAITING on."""

    __slots__ = ("_endpoint", "_reader", "_source", "connection")

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint.clients)
        self._endpoint = endpoint
        self._reader: Reader | None = None
        self._source = b""  # what the trail says of this client
        self.connection: Connection | None = None

    # ClientStream

    def opened(self) -> None:
        if self._endpoint.paused:
            self.hold(HOLD_NODE)

    def identify(self) -> None:
        life, endpoint = self.life, self._endpoint
        answer = endpoint.authenticate(life.connect(), self.peer, life.claim())
        if isinstance(answer, Principal):
            self._open(answer)
        else:
            self.look_up(self._await(answer))

    def packets(self, data: bytes) -> bool:
        reader = self._reader
        if reader is None:
            return False
        packets = self._handle(reader, data)
        if reader.kept != self.kept:
            self.keep(reader.kept)
        self._endpoint.turn.step(packets)
        return packets > 0

    def progress(self) -> int:
        return -1 if self._reader is None else self._reader.progress()

    def fail(self, reason: int, why: str) -> None:
        connection, endpoint = self.connection, self._endpoint
        if connection is not None:
            endpoint.clients.notices.warn(
                "closed", "%s: client %s of %s closed: %s: %s",
                endpoint.name, connection.peer, connection.principal.name, name_of(reason), why,
            )  # fmt: skip
            self._reader = None
            endpoint.broker.fail(connection, reason)
            endpoint.turn.wake()

    def ended(self) -> None:
        connection = self.connection
        self.connection = None  # the two refer to each other: without a cycle they are freed at once
        self._reader = None  # and what it buffers
        if connection is not None and not connection.closing:
            self._endpoint.broker.lost(connection)
            self._endpoint.turn.wake()

    def client(self) -> str:
        connection = self.connection
        return self.peer.address if connection is None else f"{connection.principal.name} at {self.peer.address}"

    # Stream

    def congested(self) -> None:
        self.hold(HOLD_WRITING)  # a client that does not read its answers is not read either
        connection = self.connection
        if connection is not None and not self.life.ended():
            self._endpoint.broker.pause(connection)
            self._endpoint.turn.wake()

    def relieved(self) -> None:
        self.release(HOLD_WRITING)
        self.owe()
        connection = self.connection
        if connection is not None and not self.life.ended():
            self._endpoint.broker.resume(connection)
            self._endpoint.turn.wake()

    # Shell of the connection

    def flush(self) -> None:
        """Write what the broker has put out."""
        connection = self.connection
        if connection is None:
            return
        out = connection.out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            connection.traced.clear()  # the receiver has its context in the packet
            self.write(data)
        if connection.closing:
            self.close()
        elif self.life.state == WAITING and connection.accepted:
            self.established(connection.keep_alive)
        if self.holds:
            if self.holds & HOLD_BROKER and not connection.congested and connection.later is None:
                self.release(HOLD_BROKER)
            self.owe()

    def leave(self) -> None:
        """The node stops: tell the client if the protocol allows it; the broker is not told."""
        self.connection = None
        self.dismiss()

    def retire(self) -> None:
        """Its listener is gone: tell the client if the protocol allows it; for the broker the connection is lost."""
        self.flush()  # the broker's output comes first
        self.dismiss()

    # Internal

    async def _await(self, answer: Awaitable[Principal]) -> None:
        try:
            principal = await answer
        except Refused as error:
            self.refuse(error)
        except Exception:
            log.exception("%s: the client could not be identified", self._endpoint.name)
            self.refuse(Refused(SERVER_UNAVAILABLE))
        else:
            self._open(principal)
            if not self.life.ended():
                self.release(HOLD_IDENTITY)

    def _open(self, principal: Principal) -> None:
        endpoint, life = self._endpoint, self.life
        connect = life.connect()
        try:
            connection = self.connection = endpoint.broker.open(connect, principal, self.peer, self)
        except Exception as error:  # noqa: BLE001 - logged; the client would wait for its CONNACK
            endpoint.faults.warn("open", "%s: the CONNECT of client %s could not be handled", endpoint.name, self.peer)
            self.refuse(Refused(IMPLEMENTATION_SPECIFIC_ERROR, str(error)))
            return
        self.rest_on(principal.claim)
        early = self.hand_over()
        self._reader = reader = Reader(endpoint.admission.limits, SERVER, life.protocol)
        self._source = f"{principal.name}, client {connect.client_id}".encode()
        self._handle(reader, early)
        if self.holds & HOLD_WRITING:
            endpoint.broker.pause(connection)

    def _handle(self, reader: Reader, data: bytes) -> int:
        """Handle bytes of the client; returns how many packets they complete."""
        trail = self._endpoint.trail
        if trail is None:
            packets = reader.feed(data)
            self._deliver(reader, packets, None)
            return len(packets)
        trail.begin(self._source, reader.protocol, reader, data)
        try:
            packets = reader.feed(data)
            self._deliver(reader, packets, trail)
        except Exception:  # not ``finally``: what ends the loop is named
            trail.end()
            raise
        trail.end()
        return len(packets)

    def _deliver(self, reader: Reader, packets: list[Packet], trail: Trail | None) -> None:
        connection = self.connection
        if connection is None:
            return
        broker = self._endpoint.broker
        for packet in packets:
            if connection.closing:
                break
            if trail is not None:
                trail.handle()
            if isinstance(packet, Auth) and self.life.proves():
                self._prove_again(connection, packet)
            elif trail is not None and trail.refused and trail.refuses(packet, reader.protocol):
                broker.set_aside(connection, packet)
            else:
                self._pass_on(connection, packet)
            if trail is not None:
                trail.next()
        if trail is not None:
            trail.rest()
        error = reader.error
        if error is not None and not connection.closing:
            self._endpoint.clients.notices.warn(
                "protocol error", "%s: client %s: %s", self._endpoint.name, connection.peer, error
            )
            broker.fail(connection, error.reason, str(error))
        if connection.congested or connection.later is not None:
            self.hold(HOLD_BROKER)
        self._endpoint.turn.wake()

    def _pass_on(self, connection: Connection, packet: Packet) -> None:
        """Pass a packet to the broker. A packet that raises an unexpected error ends this connection and no other."""
        endpoint = self._endpoint
        try:
            endpoint.broker.receive(connection, packet)
        except Exception as error:
            if isinstance(error, JournalError):
                raise
            endpoint.faults.warn(
                "packet", "%s: a packet of client %s could not be handled", endpoint.name, connection.peer
            )
            endpoint.broker.fail(connection, IMPLEMENTATION_SPECIFIC_ERROR)

    def _prove_again(self, connection: Connection, packet: Auth) -> None:
        """AUTH on an open connection (MQTT 5.0 section 4.12.1)."""
        try:
            self._proven(connection, self.life.prove_again(packet))
        except Later as later:
            self.answer_later(later)
        except Refused as refused:
            self._disproven(connection, refused)

    def prove(self) -> None:
        connection = self.connection
        if connection is None or connection.closing:
            return
        try:
            self._proven(connection, self.life.prove_later())
        except Refused as refused:
            self._disproven(connection, refused)
        self._endpoint.turn.wake()

    def _disproven(self, connection: Connection, refused: Refused) -> None:
        endpoint = self._endpoint
        endpoint.clients.notices.warn("refused", "%s: client %s: %s", endpoint.name, connection.peer, refused)
        endpoint.broker.fail(connection, refused.reason)

    def _proven(self, connection: Connection, answer: bytes) -> None:
        claim = connection.principal.claim = self.life.claim()
        self.rest_on(claim)
        if claim is not None:
            self._endpoint.broker.entitle(connection, self._endpoint.roles_of(claim))
        self.flush()  # the broker's output comes first
        self.write(answer)


@final
class Endpoint:
    """``authenticate`` gets the CONNECT, the peer, and the claim that the client has proved by a method of
    ``admission``, if it named one; it returns the principal or an awaitable of it, or raises ``Refused``.

    ``listen`` is where to listen; the ports really bound are in ``ports``. ``buffers`` may be shared with other
    endpoints.
    ``portion``: bytes of one read that are handled in one turn. ``trail`` names the packet that is handled.
    ``roles_of`` gives the roles of a client that has proved its identity again. The caller
    adds the broker's ``ConnectionWriter`` to ``turn`` once, also if several endpoints share the broker.
    """

    def __init__(
        self,
        name: str,
        broker: BrokerApi,
        turn: Turn,
        wheel: Wheel,
        authenticate: Authenticate,
        *,
        listen: Sequence[Listen],
        admission: Admission,
        connect_timeout: float = 10.0,
        packet_rate: int = PACKET_RATE,
        buffers: Buffers | None = None,
        portion: int = PORTION,
        unix_path: UnixPath = no_unix_path,
        trail: Trail | None = None,
        roles_of: RolesOf = roles_of_claim,
    ) -> None:
        self.name = name
        self.trail = trail
        self.admission = admission
        self.broker = broker
        self.turn = turn
        self.wheel = wheel
        self.authenticate = authenticate
        self.roles_of = roles_of
        self.paused = False
        self.faults = Notices(log.exception, time.monotonic)  # errors in this program, with their traceback
        self.group = StreamGroup(asyncio.get_running_loop(), wheel, high=EAGER, portion=portion)
        self.clients = ClientContext(name, self.group, admission, connect_timeout, 0.0, packet_rate, buffers)
        self._listen = listen
        self._listeners = Listeners(
            name, self.group, self._client, _retire, admission.most, unix_path=unix_path, handshake=connect_timeout,
            limits=admission.limits,
            rates=admission.arrivals.handshakes, arrive=admission.arrive,
        )  # fmt: skip

    @property
    def ports(self) -> list[int]:
        """The bound ports, in the order of ``listen``."""
        return self._listeners.ports

    async def start(self) -> None:
        """Accept clients. Raises ``OSError``, which names the address, if listening fails."""
        await self._listeners.start(self._listen)

    async def prepare(self, listen: Sequence[Listen]) -> ListenerChange:
        """Prepare to listen elsewhere. Raises ``OSError``, which names the address, if that cannot be had."""
        return await self._listeners.prepare(listen)

    async def stop(self, grace: float) -> None:
        """Accept no more, tell every client, and end within ``grace`` seconds. The broker is not told: its sessions
        stay."""
        self._listeners.close()
        for stream in list(self.group.streams):
            if isinstance(stream, EndpointClient):
                stream.leave()
        await settle(self.group, grace)

    def limit(self, most: int, connect_timeout: float, packet_rate: int) -> None:
        """Other limits from now on, also for clients that are connected; of more than ``most`` none is closed. The
        owner of ``admission`` changes that itself."""
        self.clients.connect_timeout = connect_timeout
        self.clients.packet_rate = packet_rate
        self._listeners.allow(most, connect_timeout)

    def pause(self) -> None:
        """Read no client until ``resume``: the journal cannot take more."""
        self.paused = True
        for stream in self.group.streams:
            stream.hold(HOLD_NODE)

    def resume(self) -> None:
        """Read the clients again."""
        self.paused = False
        for stream in self.group.streams:
            stream.release(HOLD_NODE)

    def in_force(self) -> dict[str, object]:
        """What holds at present, by name."""
        return {**self.clients.in_force(), "listen": self._listeners.in_force()}

    def detail(self) -> str:
        """What is wrong with certificates, or will be soon, in one sentence; else empty."""
        return self._listeners.detail()

    def status(self, link: str) -> SocketsStatus:
        """The status, for ``mesh status`` and metrics; ``link`` is the kind of the sockets."""
        clients, group = self.clients, self.group
        return SocketsStatus(
            link, len(group.streams), clients.rejected, clients.silent, group.bytes_in, group.bytes_out,
            group.held(), self._listeners.status(), clients.outlived,
        )  # fmt: skip

    def _client(self) -> EndpointClient:
        return EndpointClient(self)


def _retire(stream: Stream) -> None:
    if isinstance(stream, EndpointClient):
        stream.retire()


async def settle(group: StreamGroup, grace: float) -> None:
    """Wait until every stream is closed; after ``grace`` seconds the rest is aborted."""
    await until(lambda: not group.streams, grace)
    for stream in list(group.streams):
        stream.abort()
    await asyncio.sleep(0)
