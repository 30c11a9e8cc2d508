"""An MQTT endpoint: the sockets of clients that talk to an engine of this process.

The core serves back ends with it, the edge its tier links. It knows sockets, deadlines and who may come in: never
topics, sessions or messages. What always holds:

* a client gets ``connect_timeout`` seconds from its first byte's chance to an accepted CONNECT, however slowly it
  trickles, and no packet of it reaches the engine before ``authenticate`` has named its principal;
* its packets reach the engine in the order in which they came, and a packet that is wrong ends the connection after
  those before it were handled;
* a client that is silent for 1.5 times its keep alive is closed [MQTT-3.1.2-22];
* after every call of the engine the turn is woken, so nothing stays unwritten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, final

from mesh.broker.connection import Connection
from mesh.broker.inlet import Inlet
from mesh.broker.principal import Principal
from mesh.journal.errors import JournalError
from mesh.transport.admission import Admission
from mesh.transport.authentication import Authentication, GaveUp
from mesh.transport.listener import SPARE, Listener
from mesh.transport.near import Near, nowhere
from mesh.transport.notices import Notices
from mesh.transport.refusal import Refused, farewell, malformed, maximum_of, refusal
from mesh.transport.stream import EAGER, HOLD_ENGINE, HOLD_IDENTITY, HOLD_NODE, HOLD_WRITING, Home, Stream
from mesh.transport.turn import Turn
from mesh.transport.waiting import until
from mesh.transport.wheel import Wheel
from mesh.wire.decode import SERVER, Reader
from mesh.wire.limits import Limits
from mesh.wire.packets import Auth, Connect, Packet
from mesh.wire.reasons import (
    BAD_AUTHENTICATION_METHOD,
    IMPLEMENTATION_SPECIFIC_ERROR,
    KEEP_ALIVE_TIMEOUT,
    SERVER_UNAVAILABLE,
    name_of,
)

KEEP_ALIVE_FACTOR: Final = 1.5  # [MQTT-3.1.2-22]
EARLY: Final = 1000  # packets that may come with CONNECT, before it is known who that is

# What became of a client.
CONNECTING: Final = 0
IDENTIFYING: Final = 1
OPEN: Final = 2
CLOSED: Final = 3
PROVING: Final = 4  # packets of an enhanced authentication go back and forth

log = logging.getLogger(__name__)

Authenticate = Callable[[Connect, str], "Awaitable[Principal] | Principal"]


@final
class Client(Stream):
    """One client's socket: the shell of its ``Connection``."""

    __slots__ = (
        "_authentication", "_connect", "_early", "_endpoint", "_kept", "_reader", "_stuck", "_task", "connection",
        "state",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint.home)
        self._endpoint = endpoint
        self._reader = Reader(endpoint.limits, SERVER)
        self._early: list[Packet] = []
        self._task: asyncio.Task[None] | None = None
        self._authentication: Authentication | None = None
        self._connect: Connect | None = None  # as long as who sent it is being proven
        self._kept = False  # keep alive is enforced
        self._stuck = 0  # bytes that waited to be written when the deadline was last looked at
        self.connection: Connection | None = None
        self.state = CONNECTING

    # Stream

    def opened(self) -> None:
        self._endpoint.wheel.watch(self, self._endpoint.connect_timeout)
        if self._endpoint.paused:
            self.hold(HOLD_NODE)

    def received(self, data: bytes) -> None:
        state = self.state
        if state == OPEN:
            self.heard = self._endpoint.wheel.now
            self._deliver(self._reader.feed(data))
            self._endpoint.turn.step()
        elif state == CONNECTING:
            packets = self._reader.feed(data)
            if packets and isinstance(packets[0], Connect):
                self._greeted(packets[0], packets[1:])
            elif self._reader.error is not None:
                error = self._reader.error
                self._drop(str(error), malformed(self._reader.protocol, error.reason))
        elif state == IDENTIFYING:
            self._keep_early(self._reader.feed(data))
        elif state == PROVING:
            self._prove(self._reader.feed(data))

    def congested(self) -> None:
        self.hold(HOLD_WRITING)  # who does not read the answers need not ask
        if self.state == OPEN and self.connection is not None:
            self._endpoint.engine.pause(self.connection)
            self._endpoint.turn.wake()

    def relieved(self) -> None:
        self.release(HOLD_WRITING)
        if self.state == OPEN and self.connection is not None:
            self._endpoint.engine.resume(self.connection)
            self._endpoint.turn.wake()

    def expired(self) -> None:
        connection = self.connection
        if self.state == OPEN and connection is not None and connection.accepted:
            if self._excused():
                self._endpoint.wheel.watch(self, KEEP_ALIVE_FACTOR * connection.keep_alive)
                return
            self._endpoint.engine.fail(connection, KEEP_ALIVE_TIMEOUT)
            self._endpoint.turn.wake()
        elif self.state == OPEN and connection is not None:
            self._drop("its CONNECT was not answered in time", refusal(connection.protocol, SERVER_UNAVAILABLE))
            self._endpoint.engine.lost(connection)
            self._endpoint.turn.wake()
        elif self.state == IDENTIFYING:
            self._drop("who it is was not found out in time", refusal(self._reader.protocol, SERVER_UNAVAILABLE))
        else:
            self._drop(f"no whole CONNECT within {self._endpoint.connect_timeout:g} s", b"")

    def lost(self, error: Exception | None) -> None:
        state, self.state = self.state, CLOSED
        self._cancel()
        connection = self.connection
        if state == OPEN and connection is not None and not connection.closing:
            self._endpoint.engine.lost(connection)
            self._endpoint.turn.wake()

    # Shell of the connection

    def flush(self) -> None:
        """Write what the engine has put out."""
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
            self.state = CLOSED
            self.finish()
        elif not self._kept and connection.accepted:
            self._kept = True
            self._endpoint.wheel.watch(self, KEEP_ALIVE_FACTOR * connection.keep_alive)
        if self.holds & HOLD_ENGINE and not connection.congested:
            self.release(HOLD_ENGINE)

    def dismiss(self) -> None:
        """The node stops: say so where the protocol can, without a word to the engine."""
        if self.state == OPEN and self.connection is not None and self.connection.accepted:
            connection = self.connection
            self.write(farewell(connection.protocol, self._endpoint.admission.redirect, connection.max_packet))
        self.state = CLOSED
        self._cancel()
        self.finish()

    # Its own

    def _excused(self) -> bool:
        """Whether the silence is ours: what it sent is not read, because of us, or because it is still reading what we
        wrote."""
        if self.holds & (HOLD_ENGINE | HOLD_NODE):
            return True
        pending, before = self.pending(), self._stuck
        self._stuck = pending
        return bool(self.holds & HOLD_WRITING) and (before == 0 or pending < before)

    def _greeted(self, connect: Connect, rest: list[Packet]) -> None:
        """CONNECT came."""
        try:
            authentication = self._endpoint.admission.check(connect, len(self.home.streams))
            answer = b"" if authentication is None else authentication.begin()
        except Refused as error:
            self._refuse(connect, error)
            return
        self._authentication = authentication
        self._answered(connect, answer, rest)

    def _answered(self, connect: Connect, answer: bytes, rest: list[Packet]) -> None:
        """A step of the authentication is done: the next one, or nothing is left to be proven."""
        if not answer:
            self._connect = None
            self._identify(connect, rest)
            return
        self._connect = connect
        self.state = PROVING
        self.write(answer)
        self._prove(rest)

    def _prove(self, packets: list[Packet]) -> None:
        """Packets before CONNACK, while the client proves who it is."""
        connect, authentication = self._connect, self._authentication
        error = self._reader.error
        if connect is None or authentication is None:
            return
        if not packets:
            if error is not None:
                self._drop(str(error), malformed(self._reader.protocol, error.reason))
            return
        try:
            answer = authentication.proceed(packets[0])
        except GaveUp:
            self._drop("it gave up proving who it is", b"")
        except Refused as refused:
            self._refuse(connect, refused)
        else:
            self._answered(connect, answer, packets[1:])

    def _identify(self, connect: Connect, rest: list[Packet]) -> None:
        self.state = IDENTIFYING
        if not self._keep_early(rest):
            return
        authentication, endpoint = self._authentication, self._endpoint
        try:
            if authentication is not None:
                answer: Awaitable[Principal] | Principal = endpoint.proven(authentication.identity)
            else:
                answer = endpoint.authenticate(connect, self.peer())
        except Refused as error:
            self._refuse(connect, error)
            return
        if isinstance(answer, Principal):
            self._open(connect, answer)
            return
        self.hold(HOLD_IDENTITY)
        self._task = self.home.loop.create_task(self._await(connect, answer))

    async def _await(self, connect: Connect, answer: Awaitable[Principal]) -> None:
        try:
            principal = await answer
        except Refused as error:
            self._refuse(connect, error)
        except Exception:
            log.exception("%s: finding out who the client is failed", self._endpoint.name)
            self._refuse(connect, Refused(SERVER_UNAVAILABLE))
        else:
            if self.state == IDENTIFYING:
                self._open(connect, principal)

    def _open(self, connect: Connect, principal: Principal) -> None:
        endpoint = self._endpoint
        self._task = None
        self.state = OPEN
        self.connection = endpoint.engine.open(connect, principal, self.peer(), self)
        early, self._early = self._early, []
        self._deliver(early)
        if self.holds & HOLD_WRITING:
            endpoint.engine.pause(self.connection)
        self.release(HOLD_IDENTITY)

    def _deliver(self, packets: list[Packet]) -> None:
        connection = self.connection
        if connection is None:
            return
        engine = self._endpoint.engine
        for packet in packets:
            if connection.closing:
                break
            if isinstance(packet, Auth) and self._authentication is not None:
                self._prove_again(connection, self._authentication, packet)
            else:
                self._hand_over(connection, packet)
        error = self._reader.error
        if error is not None and not connection.closing:
            self._endpoint.notices.warn(
                "protocol error", "%s: client %s: %s", self._endpoint.name, connection.peer, error
            )
            engine.fail(connection, error.reason, str(error))
        if connection.congested:
            self.hold(HOLD_ENGINE)
        self._endpoint.turn.wake()

    def _hand_over(self, connection: Connection, packet: Packet) -> None:
        """To the engine. What it cannot handle, by a fault of ours, ends this connection and no other."""
        endpoint = self._endpoint
        try:
            endpoint.engine.receive(connection, packet)
        except JournalError:
            raise
        except Exception:
            log.exception("%s: a packet of client %s could not be handled", endpoint.name, connection.peer)
            endpoint.engine.fail(connection, IMPLEMENTATION_SPECIFIC_ERROR)

    def _prove_again(self, connection: Connection, authentication: Authentication, packet: Auth) -> None:
        """AUTH on an open connection (MQTT 5.0 section 4.12.1)."""
        try:
            answer = authentication.again(packet)
        except Refused as error:
            self._endpoint.notices.warn("refused", "%s: client %s: %s", self._endpoint.name, connection.peer, error)
            self._endpoint.engine.fail(connection, error.reason)
            return
        self.flush()  # what the engine has put out comes before it
        self.write(answer)

    def _keep_early(self, packets: list[Packet]) -> bool:
        self._early += packets
        if len(self._early) > EARLY:
            self._drop(f"more than {EARLY} packets before CONNACK", b"")
            return False
        return True

    def _refuse(self, connect: Connect, error: Refused) -> None:
        answer = refusal(connect.protocol, error.reason, error.reference, maximum_of(connect))
        self._drop(f"refused: {name_of(error.reason)}: {error}", answer)

    def _drop(self, why: str, last: bytes) -> None:
        if self.state == CLOSED:
            return
        endpoint = self._endpoint
        endpoint.refused += 1
        endpoint.notices.warn("refused", "%s: connection of %s closed: %s", endpoint.name, self.peer(), why)
        self.state = CLOSED
        self._early = []
        if last:
            self.write(last)
        self.finish()
        self._cancel()

    def _cancel(self) -> None:
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()


@final
class Endpoint:
    """``authenticate`` gets the CONNECT and the peer's address, gives the principal at once or later, or raises
    ``Refused``.

    ``host`` and ``port`` are where to listen (0: a free port, then found in ``port``). ``proven`` gives the principal
    of who has proved its identity by a method of ``admission``. The composer adds the engine's ``Outlet`` to ``turn``
    once, whatever number of endpoints share the engine.
    """

    def __init__(
        self,
        name: str,
        engine: Inlet,
        turn: Turn,
        wheel: Wheel,
        authenticate: Authenticate,
        limits: Limits,
        *,
        host: str,
        port: int,
        admission: Admission,
        connect_timeout: float = 10.0,
        near: Near = nowhere,
        proven: Callable[[str], Principal] | None = None,
    ) -> None:
        self.name = name
        self.admission = admission
        self.proven = proven or _nobody
        self.engine = engine
        self.turn = turn
        self.wheel = wheel
        self.authenticate = authenticate
        self.limits = limits
        self.connect_timeout = connect_timeout
        self.notices = Notices(log)
        self.refused = 0
        self.paused = False
        self.home = Home(asyncio.get_running_loop(), wheel, high=EAGER)
        self._listener = Listener(
            name, host, port, self.home, self._client, admission.most, near=near, spare=SPARE
        )  # fmt: skip

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._listener.port

    async def start(self) -> None:
        """Accept clients. Raises ``OSError`` that names the address when it cannot be had."""
        await self._listener.start()

    async def stop(self, grace: float) -> None:
        """Accept no more, tell every client, and be done within ``grace`` seconds. The engine is not told: its sessions
        stay."""
        self._listener.stop()
        for stream in list(self.home.streams):
            if isinstance(stream, Client):
                stream.dismiss()
        await settle(self.home, grace)

    def pause(self) -> None:
        """Read no client until ``resume``: what they sent already cannot be kept."""
        self.paused = True
        for stream in self.home.streams:
            stream.hold(HOLD_NODE)

    def resume(self) -> None:
        """Read the clients again."""
        self.paused = False
        for stream in self.home.streams:
            stream.release(HOLD_NODE)

    def status(self) -> dict[str, object]:
        """Figures for people and metrics."""
        return {
            "listen": f"{self._listener.host}:{self._listener.port}",
            "connections": len(self.home.streams),
            "accepted": self._listener.total,
            "refused": self.refused + self._listener.refused,
            "held": self.home.held(),
            "bytes_in": self.home.bytes_in,
            "bytes_out": self.home.bytes_out,
        }

    def _client(self) -> Client:
        return Client(self)


def _nobody(_identity: str) -> Principal:
    raise Refused(BAD_AUTHENTICATION_METHOD)


async def settle(home: Home, grace: float) -> None:
    """Wait until every stream is gone; after ``grace`` seconds the rest is aborted."""
    await until(lambda: not home.streams, grace)
    for stream in list(home.streams):
        stream.abort()
    await asyncio.sleep(0)
