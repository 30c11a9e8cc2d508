"""The edge's end of the device links: the connections of vehicles that are connected to front doors.

It knows links, connection numbers and the journal's durable position: never topics or messages. The rules:

*A door* is one process, identified by the instance in its handshake. It has one link at a time; a newer link of the
same instance replaces the older, and a newer instance of the same name ends the older one with all its connections.

*When a link is lost*, its connections stay attached for ``grace`` seconds and nothing is sent to them; the broker's
output meanwhile is dropped, because ATTACH makes the broker send again what the vehicle does not have. After that the
connections are lost: wills are published.

*When the link is made again*, the door names every connection that it still has, and then sends LIVE for the link
itself: connections that it did not name are lost at that moment. ATTACH for an unknown number, from a door that has
sent that LIVE before, is answered with CLOSE: the connection ended here, and the door does not know that yet. Before
that LIVE, it means that this process is new, and the session from the journal is attached. OPEN for a known number
means that the door never got the answer: the first connection is ended without its will, and a new one is opened.

*Age.* Each connection has the time when its door accepted it. ATTACH never takes a session over from a younger
connection: the vehicle has connected through another door while the link of the older connection was down.

*Confirmation.* The replayable frames (DATA, CLOSE) of a link are counted as they are handled. A packet may take the
broker several turns, in which the later packets of its connection wait: their frames, and all later ones of the link,
count when they are handled. At the end of each turn
the count is noted with the journal's position; when the journal is durable up to there, CONFIRM carries the count. The
answers to the packets in those frames are sent before it, so a door that receives CONFIRM has the answers.

*Errors.* A packet, CONNECT and ATTACH included, on which the broker raises an unexpected error ends its own connection
and no other. Whatever raises, no connection that the broker has is left without a device.

*Poison.* A packet that has ended two processes of this edge is not handled again (``suspects``): its connection is
refused, and later connections of the same client are closed when they bring it.

*Credit.* A connection may have ``WINDOW`` bytes under way to its vehicle; with more, or while the link itself is
jammed, the broker pauses it. A vehicle that does not read delays only itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, final

from mesh.broker.api import BrokerApi
from mesh.broker.notices import Notices
from mesh.broker.principal import Principal
from mesh.broker.session import Connection
from mesh.edge.breadcrumb import Breadcrumb, no_breadcrumb
from mesh.edge.device import Device
from mesh.edge.doors import DoorLink, DoorOwner, DoorProcess
from mesh.edge.fingerprint import fingerprint, packets_of
from mesh.edge.status import DevicesStatus
from mesh.edge.suspects import DEATHS, Suspects
from mesh.journal.errors import JournalError
from mesh.session.store import Store
from mesh.transport.endpoint import settle
from mesh.transport.frame import CLOSE, DATA, LinkError, Opening
from mesh.transport.handshake import Prover, epoch_of, new_instance
from mesh.transport.listen import Listen
from mesh.transport.listener import Listener
from mesh.transport.refusal import Refused, goodbye, maximum_of, refusal
from mesh.transport.status import DEVICE, SocketsStatus
from mesh.transport.stream import HOLD_NODE, LINK_PORTION, StreamGroup
from mesh.transport.turn import Turn
from mesh.transport.unixsocket import UnixPath, no_unix_path
from mesh.transport.waiting import until
from mesh.transport.wheel import Wheel
from mesh.wire.decode import SERVER, Reader
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import Ack, Connect, Disconnect
from mesh.wire.reasons import IMPLEMENTATION_SPECIFIC_ERROR, PROTOCOL_ERROR, SERVER_UNAVAILABLE, name_of

# Connections that are lost, or resumed, in one turn, when a door or its network fails: 100,000 of them at once would
# take five seconds.
PORTION: Final = 128
MAX_LINKS: Final = 1024  # doors, and connections that are still in their handshake, which has 5 s

log = logging.getLogger(__name__)

Admit = Callable[[str, int, tuple[str, ...]], Principal]


@final
class Devices(DoorOwner):
    """``epoch`` grows with each start of this edge. ``admit`` returns the principal of a vehicle for the epoch of its
    map record and its roles, or raises ``Refused``. ``grace``: seconds that connections wait for their lost link.

    The node adds ``devices.settle`` to the turn after the journal's commit and the ``ConnectionWriter``; it calls
    ``durable`` after ``Broker.durable``, and once at its start with the journal's first position.
    """

    def __init__(
        self,
        name: str,
        epoch: int,
        broker: BrokerApi,
        journal: Store,
        turn: Turn,
        wheel: Wheel,
        prover: Prover,
        admit: Admit,
        limits: PacketLimits,
        *,
        listen: Listen,
        grace: float = 30.0,
        unix_path: UnixPath = no_unix_path,
        links: int = MAX_LINKS,
        breadcrumb: Breadcrumb | None = None,
        suspects: Suspects | None = None,
    ) -> None:
        group = StreamGroup(asyncio.get_running_loop(), wheel, portion=LINK_PORTION)
        breadcrumb = breadcrumb or no_breadcrumb()
        super().__init__(name, new_instance(epoch), broker, turn, group, prover, limits, grace, breadcrumb)
        self.paused = False
        self.notices = Notices(log.warning, time.monotonic)
        self._faults = Notices(log.exception, time.monotonic)  # errors in this program, with their traceback
        self.refused = 0
        self.poisoned = 0
        self._suspects = suspects or Suspects()
        self._journal = journal
        self._admit = admit
        self._durable = 0
        self._fresh = False  # the links are still to be told of ``_durable``
        self._doors: dict[str, DoorProcess] = {}
        self._sessions: dict[tuple[str, str], Device] = {}
        # Connections that the broker does not know to be lost, by session, and doors with connections to resume.
        self._losing: dict[tuple[str, str], Device] = {}
        self._resuming: deque[DoorProcess] = deque()
        self._lost = 0  # in this turn
        self._listener = Listener(name, listen, self.group, self._link, links, unix_path=unix_path)

    @property
    def port(self) -> int:
        """The bound port."""
        return self._listener.port

    async def start(self) -> None:
        """Accept doors. Raises ``OSError``, which names the address, if listening fails."""
        await self._listener.start()

    async def stop(self, grace: float) -> None:
        """Handle no more frames, confirm what was handled, and close the links within ``grace`` seconds.

        The vehicles stay connected to their doors and the broker is not told. Call it while the journal still commits.
        """
        deadline = self.group.loop.time() + grace
        self._listener.stop()
        self.stopping = True
        self.turn.wake()
        await until(lambda: all(link.settled() for link in self.links), grace)
        for link in list(self.links):
            link.finish()
        await settle(self.group, max(0.1, deadline - self.group.loop.time()))

    def limit(self, limits: PacketLimits, grace: float, links: int) -> None:
        """Other limits from now on. ``limits`` are those of new connections; open ones keep the object that they have.
        A link that is lost already keeps its ``grace``."""
        self.limits = limits
        self.grace = grace
        self._listener.limit = links

    def in_force(self) -> dict[str, object]:
        """What holds at present, by name."""
        return {
            "packets": self.limits.in_force(), "attach_grace": self.grace, "links": self._listener.limit,
        }  # fmt: skip

    def pause(self) -> None:
        """Read no door until ``resume``: the journal cannot take more."""
        self.paused = True
        for link in self.links:
            link.hold(HOLD_NODE)

    def resume(self) -> None:
        """Read the doors again."""
        self.paused = False
        for link in self.links:
            link.release(HOLD_NODE)

    def settle(self) -> None:
        """A step of the turn: note the handled frames of the links, and confirm those that are durable."""
        busy = self.busy
        if busy:
            position = self._journal.position
            for link in busy:
                link.note(position, self._durable)
            late = [link for link in busy if link.late]
            busy.clear()
            busy.update(late)  # until the broker has handled their frames
        if self._fresh:
            self._fresh = False
            for link in self.links:
                link.confirm(self._durable)
        if self._losing:
            self._lose_some(PORTION - self._lost)
        self._lost = 0
        if self._resuming:
            self._resume_some()

    def _lose_some(self, count: int) -> None:
        losing = self._losing
        for key in list(islice(losing, max(count, 0))):
            self._lose(losing.pop(key))
        self.turn.wake()

    def _lose(self, device: Device) -> None:
        connection = device.connection
        device.connection = None  # the two refer to each other
        if connection is not None and not connection.closing:
            self._abandon(device.key[0], connection)
            self.turn.wake()

    def _abandon(self, vehicle: str, connection: Connection) -> None:
        """Tell the broker that a connection is lost."""
        try:
            self.broker.lost(connection)
        except Exception as error:
            if isinstance(error, JournalError):
                raise
            self._fault(vehicle, "the loss of its connection")

    def _conclude(self, vehicle: str, connection: Connection) -> None:
        """Tell the broker that a connection ends without its will."""
        try:
            self.broker.receive(connection, Disconnect())
        except Exception as error:
            if isinstance(error, JournalError):
                raise
            self._fault(vehicle, "the end of its connection")
            self._abandon(vehicle, connection)

    def _fault(self, vehicle: str, what: str) -> None:
        """Log the exception that is handled at present: an error in this program, which must not end the link, or the
        door would replay the frame."""
        self._faults.warn("fault", "%s: vehicle %s: %s could not be handled", self.name, vehicle, what)

    def _resume_some(self) -> None:
        door = self._resuming.popleft()
        for _ in range(PORTION):
            if door.jammed or not door.stalled:
                break
            door.stalled.pop().resume()
        if door.stalled and not door.jammed:
            self._resuming.append(door)
        self.turn.wake()

    def durable(self, position: int) -> None:
        """The journal is durable up to ``position``: confirm what that covers at the end of this turn, behind the
        answers."""
        self._durable = position
        self._fresh = True

    def status(self) -> DevicesStatus:
        """The status, for ``mesh status`` and metrics."""
        group = self.group
        sockets = SocketsStatus(
            DEVICE, len(group.streams), self.refused, 0, group.bytes_in, group.bytes_out, group.held(),
            (self._listener.status(),),
        )  # fmt: skip
        doors = tuple([door.status() for door in self._doors.values()])
        return DevicesStatus(sockets, doors, self.poisoned, self._suspects.detail)

    # Doors

    def _link(self) -> DoorLink:
        return DoorLink(self)

    def welcome(self, link: DoorLink, name: str, instance: bytes) -> DoorProcess:
        """A door has proved its identity."""
        door = self._doors.get(name)
        if door is not None and door.instance != instance:
            if door.link is not None and epoch_of(instance) < epoch_of(door.instance):
                raise LinkError(f"a newer process of {name} is connected already")
            door.end()
            door = None
        if door is None:
            door = self._doors[name] = DoorProcess(self, name, instance)
        self.links.add(link)
        if self.paused:
            link.hold(HOLD_NODE)
        door.joined(link)
        return door

    def forget(self, door: DoorProcess) -> None:
        """The door did not reconnect in time."""
        log.warning("%s: front door %s did not reconnect within %g s", self.name, door.name, self.grace)
        if self._doors.get(door.name) is door:
            del self._doors[door.name]
        door.end()

    def expel(self, vehicles: set[str]) -> Iterator[None]:
        """End the connections of vehicles that belong to another edge now, without their wills, one at each step. Their
        doors close the sockets, and the vehicles connect to their edge."""
        for device in [device for (vehicle, _), device in self._sessions.items() if vehicle in vehicles]:
            if self._sessions.get(device.key) is device:
                connection = device.connection
                if connection is not None:
                    self._conclude(device.key[0], connection)
                self._displace(device)
                self.turn.wake()
            yield

    def release(self, device: Device) -> None:
        """``device`` is no longer the connection of its session."""
        if self._sessions.get(device.key) is device:
            del self._sessions[device.key]

    def lost(self, device: Device) -> None:
        self._lost += 1
        if self._lost <= PORTION:
            self._lose(device)
            return
        before = self._losing.pop(device.key, None)
        if before is not None:
            self._lose(before)
        self._losing[device.key] = device
        self.turn.wake()

    def _lose_first(self, key: tuple[str, str]) -> None:
        """A vehicle is back before the broker was told that its last connection is lost."""
        if self._losing:
            device = self._losing.pop(key, None)
            if device is not None:
                self._lose(device)

    def relieved(self, door: DoorProcess) -> None:
        if door not in self._resuming:
            self._resuming.append(door)
        self.turn.wake()

    # Connections

    def open(self, link: DoorLink, door: DoorProcess, number: int, opening: Opening) -> None:
        """OPEN: a vehicle has sent CONNECT."""
        old = door.connections.get(number)
        if old is not None:
            if old.named:
                raise LinkError(f"the door opened connection {number} twice")
            door.remove(old)
            if old.connection is not None:
                self._conclude(old.key[0], old.connection)
        reader, connect = self._read(opening)
        try:
            principal = self._admit(opening.vehicle, opening.epoch, opening.roles)
            principal.provider = opening.provider
            condemned = self._examine(door, number, opening, connect)
        except Refused as error:
            answer = refusal(connect.protocol, error.reason or SERVER_UNAVAILABLE)
            self._refuse(link, number, opening, answer, error)
            return
        self._lose_first((opening.vehicle, connect.client_id))
        device = Device(door, number, opening.opened, (opening.vehicle, connect.client_id), reader)
        device.condemned = condemned
        door.connections[number] = device
        try:
            device.connection = self.broker.open(connect, principal, opening.peer, device)
        except JournalError:
            door.remove(device)
            raise
        except Exception:  # noqa: BLE001 - logged by ``_fault``
            door.remove(device)
            self._fault(opening.vehicle, "its CONNECT")
            answer = refusal(connect.protocol, IMPLEMENTATION_SPECIFIC_ERROR, maximum=maximum_of(connect))
            self._refuse(link, number, opening, answer, Refused(IMPLEMENTATION_SPECIFIC_ERROR))
            return
        device.key = (opening.vehicle, connect.client_id)  # the broker has assigned a client id if there was none
        self._sessions[device.key] = device
        self.turn.wake()

    def attach(self, link: DoorLink, door: DoorProcess, number: int, opening: Opening) -> None:
        """ATTACH: a vehicle's connection outlived the link."""
        reader, connect = self._read(opening)
        if opening.client_id:
            connect.client_id = opening.client_id
        key = (opening.vehicle, connect.client_id)
        self._lose_first(key)
        before = door.connections.get(number)
        if before is None and door.complete:
            link.send(CLOSE, number)
            return
        rival = self._sessions.get(key)
        if rival is not None and rival is not before and rival.age > opening.opened:
            link.send(CLOSE, number)
            return
        try:
            principal = self._admit(opening.vehicle, opening.epoch, opening.roles)
            principal.provider = opening.provider
            condemned = self._examine(door, number, opening, connect)
        except Refused as error:
            told = error.reason == IMPLEMENTATION_SPECIFIC_ERROR  # other reasons are those of a CONNACK
            answer = goodbye(connect.protocol, error.reason, maximum_of(connect)) if told else b""
            self._refuse(link, number, opening, answer, error)
            return
        device = Device(door, number, opening.opened, key, reader)
        device.condemned = condemned
        device.attached(opening.under_way)
        try:
            device.connection = self.broker.attach(connect, principal, opening.peer, device, opening.unacked)
        except JournalError:
            raise
        except Exception:  # noqa: BLE001 - logged by ``_fault``
            self._fault(opening.vehicle, "the continuation of its connection")
            self._end_both(before, rival)
            answer = goodbye(connect.protocol, IMPLEMENTATION_SPECIFIC_ERROR, maximum_of(connect))
            self._refuse(link, number, opening, answer, Refused(IMPLEMENTATION_SPECIFIC_ERROR))
            return
        # Only now, when the broker has replaced their connections.
        if before is not None:
            door.remove(before)
            before.connection = None
        if rival is not None and rival is not before:
            self._displace(rival)
        door.connections[number] = device
        self._sessions[key] = device
        self.turn.wake()

    def _end_both(self, before: Device | None, rival: Device | None) -> None:
        """The session could not be attached: end the connections that it had, which the broker may have left."""
        for device in (before, rival):
            if device is not None and device.connection is not None:
                self._abandon(device.key[0], device.connection)
                if device is before:
                    device.door.remove(device)  # the caller closes its number
                    device.connection = None
                else:
                    self._displace(device)

    def _displace(self, rival: Device) -> None:
        """Close a connection that the broker has replaced or ended, without any output of it."""
        door = rival.door
        if door.link is not None and rival.named:
            door.link.send(CLOSE, rival.number)
        door.remove(rival)
        rival.connection = None

    def entitle(self, device: Device, roles: tuple[str, ...]) -> None:
        """ROLES: the vehicle of a connection has other roles."""
        connection = device.connection
        if connection is None or connection.closing:
            return
        try:
            self.broker.entitle(connection, roles)
        except Exception as error:
            if isinstance(error, JournalError):
                raise
            self._fault(device.key[0], "a change of its roles")
            self._fail(device, connection, IMPLEMENTATION_SPECIFIC_ERROR)
        self.turn.wake()

    def receive(self, device: Device, body: bytes) -> int:
        """DATA: packets of a vehicle. Returns how many."""
        connection = device.connection
        if connection is None:
            return 0
        if device.condemned is not None and self._is_poison(device, device.condemned, body):
            return 0
        reader = device.reader
        packets = reader.feed(body)
        acks = False  # the breadcrumb names the first of a run of acknowledgements only
        for index, packet in enumerate(packets):
            if connection.closing:
                return 0
            ack = isinstance(packet, Ack)
            if index and not (ack and acks):
                self.breadcrumb.packet(index)
            acks = ack
            try:
                self.broker.receive(connection, packet)
            except Exception as error:
                if isinstance(error, JournalError):
                    raise
                self._fault(device.key[0], "a packet")
                self._fail(device, connection, IMPLEMENTATION_SPECIFIC_ERROR)
        if reader.error is not None and not connection.closing:
            self.notices.warn("protocol error", "%s: vehicle %s: %s", self.name, device.key[0], reader.error)
            self._fail(device, connection, reader.error.reason, str(reader.error))
        return len(packets)

    def _fail(self, device: Device, connection: Connection, reason: int, why: str = "") -> None:
        """Close a connection at which something is wrong."""
        try:
            self.broker.fail(connection, reason, why)
        except Exception as error:
            if isinstance(error, JournalError):
                raise
            self._fault(device.key[0], "the end of its connection")
            self._abandon(device.key[0], connection)
            self._displace(device)

    def _examine(
        self, door: DoorProcess, number: int, opening: Opening, connect: Connect
    ) -> frozenset[str] | None:
        """The packets of this client that are refused, if there are any. Raises ``Refused`` if the connection is."""
        suspects = self._suspects
        if not suspects:
            return None
        vehicle, client = opening.vehicle, connect.client_id
        found = suspects.meet(door.instance, number, vehicle, client)
        condemned = suspects.condemned(vehicle, client)
        if found is not None or fingerprint(opening.connect) in condemned:
            self.poisoned += 1
            packet = "CONNECT" if found is None else found.packet
            raise Refused(
                IMPLEMENTATION_SPECIFIC_ERROR,
                f"client {client!r}: the edge's process ended {DEATHS} times while it handled the same {packet}",
            )
        return condemned or None

    def _is_poison(self, device: Device, condemned: frozenset[str], body: bytes) -> bool:
        """Close the connection if it brings a condemned packet."""
        connection = device.connection
        if connection is None or not any(fingerprint(raw) in condemned for raw in packets_of(body)):
            return False
        self.poisoned += 1
        vehicle, client = device.key
        self.notices.warn(
            "poison", "%s: vehicle %s, client %r, is closed: it sent a packet that ended the edge's process %d times",
            self.name, vehicle, client, DEATHS,
        )  # fmt: skip
        self._fail(device, connection, IMPLEMENTATION_SPECIFIC_ERROR)
        return True

    def _read(self, opening: Opening) -> tuple[Reader, Connect]:
        reader = Reader(self.limits, SERVER)
        packets = reader.feed(opening.connect)
        connect = packets[0] if packets else None
        if not isinstance(connect, Connect):
            raise LinkError(f"the door sent a CONNECT that cannot be read: {reader.error or name_of(PROTOCOL_ERROR)}")
        return reader, connect

    def _refuse(self, link: DoorLink, number: int, opening: Opening, answer: bytes, error: Refused) -> None:
        self.refused += 1
        self.notices.warn("refused", "%s: vehicle %s refused: %s", self.name, opening.vehicle, error)
        if answer:
            link.send(DATA, number, answer)
        link.send(CLOSE, number)
