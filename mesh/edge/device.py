"""One vehicle's connection at the edge: the shell of its ``Connection``, between the broker and a device link.

It knows how many bytes are under way to the vehicle: never what a packet means. What always holds: nothing is sent on a
link that has not named the connection, and nothing is kept for it either, because ATTACH makes the broker send again
what the vehicle does not have. With more than ``WINDOW`` bytes under way, or on a jammed link, the broker pauses this
connection and no other.
"""

from __future__ import annotations

from typing import final

from mesh.broker.api import BrokerApi
from mesh.broker.session import Connection
from mesh.broker.shell import Flushable
from mesh.session.fifo import Fifo
from mesh.transport.frame import ACCEPTED, CLOSE, DATA, TRACED, WINDOW, pack_accepted, pack_traced
from mesh.transport.link import Link
from mesh.wire.decode import Reader


@final
class LateFrame:
    """A frame of which the broker has still to handle packets, and which is not confirmed before. ``number``: of the
    frame on its link; ``packets``: how many it brought; ``last``: ``Connection.begun`` when its last one is begun."""

    __slots__ = ("body", "last", "number", "packets")

    def __init__(self, number: int, body: bytes, packets: int, last: int) -> None:
        self.number = number
        self.body = body
        self.packets = packets
        self.last = last


class DeviceOwner:
    """What a connection uses of its front door. ``link`` is the door's present link; ``jammed``: the link's write
    buffer is full; ``stalled``: the connections that are paused until it is not."""

    __slots__ = ("broker", "jammed", "link", "stalled")

    def __init__(self, broker: BrokerApi) -> None:
        self.broker = broker
        self.link: Link | None = None
        self.jammed = False
        self.stalled: set[Device] = set()

    def remove(self, device: Device) -> None:
        """The connection has ended."""
        raise NotImplementedError

    def blame(self, number: int, body: bytes, index: int) -> None:
        """The broker works on the packet ``index`` of a frame of this connection: the breadcrumb names it."""
        raise NotImplementedError

    def absolve(self) -> None:
        """The broker works on no packet: the breadcrumb names none."""
        raise NotImplementedError


@final
class Device(Flushable):
    """One vehicle's connection: the shell of its ``Connection``."""

    __slots__ = (
        "_blamed", "_credited", "_greeted", "_late", "_under_way", "age", "condemned", "connection", "door", "key",
        "named", "number", "reader",
    )  # fmt: skip

    def __init__(self, door: DeviceOwner, number: int, age: int, key: tuple[str, str], reader: Reader) -> None:
        self.door = door
        self.number = number
        self.age = age
        self.key = key  # vehicle and client id
        self.reader = reader
        self.connection: Connection | None = None
        self.named = True  # on the present link
        self.condemned: frozenset[str] | None = None  # fingerprints of its packets that are refused, if there are any
        self._greeted = False
        self._credited = True
        self._under_way = 0
        self._late: Fifo[LateFrame] | None = None
        self._blamed = False

    def postpone(self, number: int, body: bytes, packets: int) -> None:
        """The broker has still to handle packets of a frame."""
        connection = self.connection
        if connection is None or connection.later is None:
            return
        if self._late is None:
            self._late = Fifo()
        self._late.append(LateFrame(number, body, packets, connection.begun + len(connection.later)))

    def oldest_late(self) -> int:
        """The number of the first frame of which the broker has still to handle packets; 0 if there is none."""
        connection, late = self.connection, self._late
        if late is None or connection is None or connection.later is None:
            self._late = None
            return 0
        while late.first().last < connection.begun:
            late.popleft()
        return late.first().number

    def resumed(self, begun: int) -> None:
        late = self._late
        if late is None:
            return  # it is the call that brought the first frame
        for frame in late:
            if frame.last >= begun:
                self._blamed = True
                self.door.blame(self.number, frame.body, frame.packets - 1 - (frame.last - begun))
                return

    def rested(self) -> None:
        if self._blamed:
            self._blamed = False
            self.door.absolve()

    def attached(self, under_way: int) -> None:
        """The vehicle already has its CONNACK, and ``under_way`` bytes wait at the door for the vehicle to read."""
        self._greeted = True
        self._under_way = under_way

    def flush(self) -> None:
        """Send what the broker has put out."""
        connection = self.connection
        if connection is None:
            return
        out = connection.out
        link = self.door.link
        if out:
            if link is not None and self.named:
                self._send(connection, link)
            out.clear()
        if connection.traced:
            connection.traced.clear()
        if connection.closing:
            if link is not None and self.named:
                link.send(CLOSE, self.number)
            self.door.remove(self)
            self.connection = None  # the two refer to each other: without a cycle they are freed at once

    def _send(self, connection: Connection, link: Link) -> None:
        out = connection.out
        start = 0
        if not self._greeted and connection.accepted:
            self._greeted = True
            assigned = self.key[1] if connection.assigned else ""
            link.send(ACCEPTED, self.number, pack_accepted(connection.keep_alive, assigned, out[0]))
            start = 1
        for index, context in connection.traced:
            size = self._data(link, out[start:index])
            link.send(TRACED, self.number, pack_traced(context, out[index]))
            self._under_way += size + len(out[index])
            start = index + 1
        self._under_way += self._data(link, out[start:] if start else out)
        if self._under_way > WINDOW:
            self._credited = False
            self.door.broker.pause(connection)
        elif self.door.jammed:
            self.door.stalled.add(self)
            self.door.broker.pause(connection)

    def _data(self, link: Link, packets: list[bytes]) -> int:
        if not packets:
            return 0
        body = packets[0] if len(packets) == 1 else b"".join(packets)
        link.send(DATA, self.number, body)
        return len(body)

    def credit(self, size: int) -> None:
        """The door has written ``size`` bytes to the vehicle."""
        self._under_way = max(0, self._under_way - size)
        if not self._credited and self._under_way <= WINDOW // 2:
            self._credited = True
            self.resume()

    def resume(self) -> None:
        """Let the broker resume the connection if there is credit and the link is not jammed."""
        connection = self.connection
        if connection is None or not self._credited:
            return
        door = self.door
        if door.jammed:
            door.stalled.add(self)
        else:
            door.stalled.discard(self)
            door.broker.resume(connection)
