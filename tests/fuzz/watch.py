"""Checks both directions of one connection against the rules of MQTT for a server.

It knows the rules that hold for every behaviour of the client: what may be sent when, with which identifier, in which
order. It must never know sessions or the purpose of a message. It gets a client's packets before the server does, so it
also finds an answer that comes too early.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from mesh.wire.decode import CLIENT, Reader
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import (
    MQTT5,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    SubAck,
    Subscribe,
    Unsubscribe,
)
from mesh.wire.reasons import PROTOCOL_ERROR

_LIMITS: Final = PacketLimits(max_packet_size=4 << 20, max_subscriptions=10_000, max_user_properties=1000)
_ERROR: Final = 0x80
_NOT_FOUND: Final = 0x92


def _is_protocol_error(packet: Packet) -> bool:
    return isinstance(packet, Disconnect) and packet.reason == PROTOCOL_ERROR


class Breach(AssertionError):
    """The server broke a rule, or one of its own promises."""


def insist(holds: bool, what: str) -> None:
    """Raise ``Breach`` unless ``holds``."""
    if not holds:
        raise Breach(what)


class Watch:
    """``window`` is the server's own limit of deliveries in flight; the client's receive maximum may be lower.
    ``crossing``: there is a network in between, where a fuzzed acknowledgement may cross the message with its
    identifier; such a message is not checked. ``misfit``: the client has sent an acknowledgement that does not fit the
    delivery with its identifier, so the server must end the connection."""

    __slots__ = (
        "_aliases", "_answers", "_completes", "_crossed", "_crossing", "_flying", "_greeted", "_max_alias",
        "_max_packet", "_over", "_pings", "_proves", "_reader", "_received", "_requests", "_unknown", "_window",
        "misfit", "protocol",
    )  # fmt: skip

    def __init__(self, connect: Connect, window: int, crossing: bool = False) -> None:
        properties = connect.properties
        asked = None if properties is None else properties.receive_maximum
        self.protocol = connect.protocol
        self._window = window if asked is None else min(window, asked)
        self._max_packet = 0 if properties is None else properties.maximum_packet_size or 0
        self._max_alias = 0 if properties is None else properties.topic_alias_maximum or 0
        self._reader = Reader(_LIMITS, CLIENT, connect.protocol)
        self._greeted = False
        self._over = False
        self._flying: dict[int, int] = {}  # identifiers of the server in flight -> their QoS
        self._proves = properties is not None and properties.auth_method is not None
        self._crossing = crossing
        self._crossed: set[int] = set()
        self._received: set[int] = set()  # identifiers in flight that the client has answered with PUBREC
        self._unknown = 0  # PUBRECs for identifiers that were never sent here
        self._answers: deque[tuple[int, int]] = deque()  # PUBACK and PUBREC that are due, in their order
        self._completes: deque[int] = deque()  # PUBCOMPs that are due
        self._requests: deque[tuple[int, int, int]] = deque()  # SUBACK and UNSUBACK that are due, with their codes
        self._pings = 0
        self._aliases: set[int] = set()  # those that the client knows
        self.misfit = False

    # Packets of the client

    def said(self, packet: Packet) -> None:
        """The server is about to see a packet of the client."""
        if isinstance(packet, Publish):
            if packet.qos:
                self._answers.append((PUBACK if packet.qos == 1 else PUBREC, packet.packet_id))
        elif isinstance(packet, Ack):
            self._said_ack(packet)
        elif isinstance(packet, Subscribe):
            self._requests.append((SUBACK, packet.packet_id, len(packet.subscriptions)))
        elif isinstance(packet, Unsubscribe):
            self._requests.append((UNSUBACK, packet.packet_id, len(packet.filters) if self.protocol == MQTT5 else 0))
        elif isinstance(packet, Ping) and packet.type == PINGREQ:
            self._pings += 1

    def _said_ack(self, packet: Ack) -> None:
        packet_id = packet.packet_id
        if self._crossing and packet.type != PUBREL and packet_id not in self._flying:
            self._crossed.add(packet_id)
        if packet.type == PUBREL:
            self._completes.append(packet_id)
        elif packet_id not in self._crossed and not self._fits(packet):
            self.misfit = True
        elif packet.type == PUBREC and packet.reason < _ERROR:
            if packet_id in self._flying:
                self._received.add(packet_id)
            else:
                self._unknown += 1
        else:
            self._flying.pop(packet_id, None)
            self._received.discard(packet_id)

    def _fits(self, packet: Ack) -> bool:
        """Whether an acknowledgement fits the message with its identifier that was sent on this connection, if any."""
        qos = self._flying.get(packet.packet_id)
        if qos is None:
            return True
        if packet.type == PUBCOMP:
            return packet.packet_id in self._received
        return qos == (1 if packet.type == PUBACK else 2)

    def lost_track(self) -> None:
        """The client has sent malformed bytes. A front door, which reads only the first bytes of a packet, may answer
        PINGREQs until the edge ends the connection."""
        self._pings = 1 << 30

    # Packets of the server (this runs for every packet, so messages are made only for a breach)

    def heard(self, raws: list[bytes]) -> list[Packet]:
        """Check the output of the server, one packet per entry; returns the packets."""
        reader = self._reader
        packets = reader.feed(raws[0] if len(raws) == 1 else b"".join(raws))
        if reader.error is not None:
            raise Breach(f"the server's bytes cannot be read: {reader.error}")
        if reader.pending or len(packets) != len(raws):
            raise Breach(f"{len(raws)} entries are {len(packets)} packets and {reader.pending} bytes")
        for packet, raw in zip(packets, raws, strict=True):
            if self._max_packet and len(raw) > self._max_packet:
                raise Breach(f"{len(raw)} bytes, and the client takes {self._max_packet}: {packet}")
            self._check(packet)
        return packets

    def _check(self, packet: Packet) -> None:
        if self._over:
            raise Breach(f"after the end of the connection came {packet}")
        if self.misfit and not self._crossing and not _is_protocol_error(packet):
            raise Breach(f"after an acknowledgement that does not fit came {packet}")
        if not self._greeted:
            self._check_first(packet)
        elif isinstance(packet, Publish):
            self._check_publish(packet)
        elif isinstance(packet, Ack):
            self._check_ack(packet)
        elif isinstance(packet, SubAck):
            self._check_request(packet)
        elif isinstance(packet, Ping) and packet.type == PINGRESP and self._pings > 0:
            self._pings -= 1
        elif isinstance(packet, Disconnect) and self.protocol == MQTT5:
            self._over = True
        else:
            raise Breach(f"unexpected {packet}")

    def _check_first(self, packet: Packet) -> None:
        if isinstance(packet, Auth) and self._proves:
            return
        if not isinstance(packet, Connack):
            raise Breach(f"before CONNACK came {packet}")  # [MQTT-3.2.0-1]
        self._greeted = True
        self._over = packet.reason != 0

    def _check_publish(self, packet: Publish) -> None:
        if packet.properties is not None or not packet.topic:
            self._check_alias(packet)
        if not packet.qos:
            if packet.dup:
                raise Breach(f"QoS 0 with DUP: {packet}")
            return
        packet_id = packet.packet_id
        if packet_id in self._crossed:
            return
        if packet_id in self._flying:
            raise Breach(f"identifier {packet_id} is with the client already: {packet}")
        self._flying[packet_id] = packet.qos
        if len(self._flying) > self._window:
            raise Breach(f"{len(self._flying)} in flight are more than {self._window}")  # [MQTT-3.3.4-9]

    def _check_alias(self, packet: Publish) -> None:
        alias = None if packet.properties is None else packet.properties.topic_alias
        if alias is None:
            if not packet.topic:
                raise Breach(f"neither topic nor alias: {packet}")
        elif alias > self._max_alias:
            raise Breach(f"the client takes {self._max_alias} aliases: {packet}")
        elif packet.topic:
            self._aliases.add(alias)
        elif alias not in self._aliases:
            raise Breach(f"the alias is unknown to the client: {packet}")

    def _check_ack(self, packet: Ack) -> None:
        packet_id = packet.packet_id
        if packet.type in (PUBACK, PUBREC):
            due = self._answers.popleft() if self._answers else None
            if due != (packet.type, packet_id):
                raise Breach(f"{packet} where {due} was due")  # [MQTT-4.6.0-2]
        elif packet.type == PUBCOMP:
            due_id = self._completes.popleft() if self._completes else None
            if due_id != packet_id:
                raise Breach(f"{packet} where {due_id} was due")
        elif packet.reason == _NOT_FOUND:
            if not self._unknown:
                raise Breach(f"unexpected {packet}")
            self._unknown -= 1
        elif packet_id in self._flying and packet_id not in self._received:
            # (A delivery that was not sent on this connection was released on an earlier one.) Before 5.0 no reason
            # code marks the answer to an unexpected PUBREC.
            if self.protocol != MQTT5 and self._unknown:
                self._unknown -= 1
                return
            raise Breach(f"{packet}, which the client has not answered with PUBREC")

    def _check_request(self, packet: SubAck) -> None:
        due = self._requests.popleft() if self._requests else None
        if due != (packet.type, packet.packet_id, len(packet.reasons)):
            raise Breach(f"{packet} where {due} was due")
