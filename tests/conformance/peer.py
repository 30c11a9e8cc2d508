"""A client that does nothing by itself: tests send packets or bytes and state which packets must come back.

It knows MQTT's packets, and a ``Wire`` that is a socket or the broker itself. What always holds: packets are returned
in the order in which they arrive; every wait has a deadline.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from mesh.wire.decode import CLIENT, PacketLimits, Reader
from mesh.wire.encode import encode
from mesh.wire.packets import (
    MQTT5,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from mesh.wire.properties import Properties

PATIENCE = 20.0  # seconds; a deadline, not an expectation

P = TypeVar("P")


class Wire(Protocol):
    """The connection below a peer."""

    def send(self, data: bytes) -> None:
        """Send bytes; do nothing if the connection is closed."""

    def receive(self, patience: float) -> bytes | None:
        """The next bytes; ``b""`` when the server has closed the connection; ``None`` at the deadline."""

    def close(self) -> None:
        """Close the connection without DISCONNECT."""


class Peer:
    """One connection. ``connack`` is the answer to CONNECT, ``received`` all bytes received."""

    def __init__(self, wire: Wire, protocol: int, client_id: str) -> None:
        self.wire = wire
        self.protocol = protocol
        self.client_id = client_id
        self.connack = Connack()
        self.received = b""
        self.ended = False
        self._reader = Reader(PacketLimits(max_packet_size=1 << 24), CLIENT, protocol)
        self._packets: list[Packet] = []
        self._last_id = 0

    # Sending

    def send(self, *packets: Packet | bytes) -> None:
        """Send packets, or bytes as they are."""
        data = [packet if isinstance(packet, bytes) else encode(packet, self.protocol) for packet in packets]
        self.wire.send(b"".join(data))

    def next_id(self) -> int:
        """A packet identifier that this peer has not used yet."""
        self._last_id += 1
        return self._last_id

    def lose(self) -> None:
        """Close the connection without DISCONNECT."""
        self.wire.close()
        self.ended = True

    def leave(self, reason: int = 0, properties: Properties | None = None) -> None:
        """Send DISCONNECT and wait until the server has closed the connection."""
        self.send(Disconnect(reason, properties))
        self.expect_close()

    # Receiving

    def next(self, patience: float = PATIENCE) -> Packet:
        """The next packet of any type."""
        assert self._fill(patience), f"{self.client_id}: no packet came before the connection was closed"
        return self._packets.pop(0)

    def expect(self, kind: type[P], patience: float = PATIENCE) -> P:
        """The next packet, which must be of this kind."""
        packet = self.next(patience)
        assert isinstance(packet, kind), f"{self.client_id}: expected {kind.__name__}, got {packet}"
        return packet

    def find(self, kind: type[P], patience: float = PATIENCE) -> P:
        """The next packet of this kind; packets of other kinds stay for later, in their order."""
        seen = 0
        while True:
            for index in range(seen, len(self._packets)):
                packet = self._packets[index]
                if isinstance(packet, kind):
                    del self._packets[index]
                    return packet
            seen = len(self._packets)
            assert self._more(patience), f"{self.client_id}: expected {kind.__name__}, got {self._packets}"

    def expect_close(self, patience: float = PATIENCE) -> list[Packet]:
        """Wait until the server closes the connection; return the packets that came before."""
        while not self.ended:
            self._read(patience)
        packets, self._packets = self._packets, []
        return packets

    def expect_end(self, reason: int) -> Disconnect | None:
        """The server ends the connection: with this reason for a 5.0 client, without DISCONNECT for an older one."""
        packets = self.expect_close()
        if self.protocol != MQTT5:
            assert packets == []
            return None
        (packet,) = packets
        assert isinstance(packet, Disconnect), packet
        assert packet.reason == reason, packet
        return packet

    def expect_nothing(self) -> None:
        """Check that no packet is left once the server has handled everything that this client sent."""
        assert self.sync() == []

    def sync(self) -> list[Packet]:
        """Wait until the server has handled everything that this client sent; return the packets that came meanwhile.

        It sends an UNSUBSCRIBE for an unknown filter, which the owner of the session answers; a ping would not do.
        """
        packet_id = 65_535
        self.send(Unsubscribe(packet_id, ["no/such/filter"]))
        came: list[Packet] = []
        while True:
            packet = self.next()
            if isinstance(packet, SubAck) and packet.packet_id == packet_id:
                return came
            came.append(packet)

    def alive(self) -> None:
        """Check that the connection is open and that the server answers."""
        self.send(Ping(PINGREQ))
        self.find(Ping)

    def _fill(self, patience: float) -> bool:
        while not self._packets:
            if not self._more(patience):
                return False
        return True

    def _more(self, patience: float) -> bool:
        """Read until a packet comes; ``False`` if the connection ends first."""
        before = len(self._packets)
        while len(self._packets) == before:
            if self.ended:
                return False
            self._read(patience)
        return True

    def _read(self, patience: float) -> None:
        data = self.wire.receive(patience)
        assert data is not None, f"{self.client_id}: no bytes within {patience:g} s on an open connection"
        if not data:
            self.ended = True
            return
        self.received += data
        self._packets += self._reader.feed(data)
        assert self._reader.error is None, f"the server sent a malformed packet: {self._reader.error}"

    # Whole exchanges

    def connect(self, packet: Connect) -> Connack:
        """Send CONNECT; return the CONNACK."""
        self.send(packet)
        self.connack = self.expect(Connack)
        return self.connack

    def subscribe(
        self, *filters: str | Subscription, qos: int = 2, identifier: int = 0, properties: Properties | None = None
    ) -> list[int]:
        """Subscribe; return the reason codes. Packets that come besides the SUBACK stay for later."""
        if identifier:
            properties = properties or Properties()
            properties.subscription_ids = [identifier]
        wanted = [filter if isinstance(filter, Subscription) else Subscription(filter, qos) for filter in filters]
        packet_id = self.next_id()
        self.send(Subscribe(packet_id, wanted, properties))
        answer = self.find(SubAck)
        assert answer.packet_id == packet_id
        return answer.reasons

    def unsubscribe(self, *filters: str) -> list[int]:
        """Unsubscribe; return the reason codes."""
        packet_id = self.next_id()
        self.send(Unsubscribe(packet_id, list(filters)))
        answer = self.find(SubAck)
        assert answer.packet_id == packet_id
        return answer.reasons

    def publish(
        self,
        topic: str,
        payload: bytes = b"x",
        qos: int = 1,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> int:
        """Publish, with the whole exchange of its QoS; return the reason code (0 for QoS 0).

        Packets that come besides the acknowledgements stay for later.
        """
        packet_id = self.next_id() if qos else 0
        self.send(Publish(topic, payload, qos, retain, False, packet_id, properties))
        if qos == 0:
            self._packets += self.sync()
            return 0
        answer = self._acknowledgement(PUBACK if qos == 1 else PUBREC, packet_id)
        if qos == 2 and answer.reason < 0x80:
            self.send(Ack(PUBREL, packet_id))
            self._acknowledgement(PUBCOMP, packet_id)
        return answer.reason

    def _acknowledgement(self, type: int, packet_id: int) -> Ack:
        answer = self.find(Ack)
        assert (answer.type, answer.packet_id) == (type, packet_id), answer
        return answer

    def message(self, patience: float = PATIENCE) -> Publish:
        """The next message, acknowledged as its QoS requires."""
        packet = self.find(Publish, patience)
        self.acknowledge(packet)
        return packet

    def messages(self, count: int) -> list[bytes]:
        """The payloads of the next messages, all acknowledged."""
        return [self.message().payload for _ in range(count)]

    def acknowledge(self, packet: Publish) -> None:
        """Acknowledge a received message with the whole exchange of its QoS."""
        if packet.qos == 1:
            self.send(Ack(PUBACK, packet.packet_id))
        elif packet.qos == 2:
            self.send(Ack(PUBREC, packet.packet_id))
            release = self.find(Ack)
            assert (release.type, release.packet_id) == (PUBREL, packet.packet_id), release
            self.send(Ack(PUBCOMP, packet.packet_id))


__all__ = ["PATIENCE", "Peer", "Wire"]
