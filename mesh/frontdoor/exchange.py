"""The packets in flight between one vehicle and its edge: enough state to continue after the edge or the link was lost.

It reads the type and the identifier of whole raw packets: nothing else of them, and never a socket. What always holds:

* an *entry* (the packets of one DATA frame, or CLOSE) is kept, in order, until the edge has confirmed it. A packet that
  the edge must answer is kept until it is answered: the edge withholds answers while a queue is full;
* an answered packet is not replayed: its identifier may be in use for a newer packet by then, and a second answer would
  acknowledge that one;
* a replayed PUBLISH of QoS 1 or 2 has DUP set [MQTT-3.3.1-1], and a QoS 0 PUBLISH that was sent once is not sent again;
* ``unacked`` names the PUBLISHes that were sent to the vehicle and are not acknowledged: for QoS 1 until PUBACK, for
  QoS 2 until PUBCOMP;
* PUBREL is sent to the vehicle once for each message on one connection [MQTT-4.4.0-1]: a restarted edge repeats it,
  because it cannot know whether the first one arrived, and the repeat is dropped here.

The life of an identifier that the edge chose: PUBLISHED → (QoS 1) PUBACK: free. PUBLISHED → (QoS 2) PUBREC: ANSWERED →
PUBREL: RELEASED → PUBCOMP: free.
"""

from __future__ import annotations

from typing import Final, final

from mesh.wire.frames import ack_packet_id, ack_reason, publish_packet_id, with_dup
from mesh.wire.reasons import is_error

PUBLISHED: Final = 1
ANSWERED: Final = 2
RELEASED: Final = 3

# The first byte of a packet without its flags.
_PUBLISH: Final = 0x30
_PUBACK: Final = 0x40
_PUBREC: Final = 0x50
_PUBREL: Final = 0x60
_PUBCOMP: Final = 0x70
_SUBSCRIBE: Final = 0x80
_SUBACK: Final = 0x90
_UNSUBSCRIBE: Final = 0xA0
_UNSUBACK: Final = 0xB0
_ENDS: Final = frozenset((_PUBACK, _PUBCOMP))
_ASKS: Final = frozenset((_PUBREL, _SUBSCRIBE, _UNSUBSCRIBE))
_ANSWERS: Final = frozenset((_PUBACK, _PUBREC, _PUBCOMP, _SUBACK, _UNSUBACK))
_QOS: Final = 0x06


@final
class HeldFrame:
    """One replayable frame. ``packets`` is ``None`` for CLOSE; ``size`` is in bytes; ``sent``: it was sent on a link
    already; ``next`` is the entry that was kept after it; ``confirmed``: only packets without an answer are left."""

    __slots__ = ("confirmed", "exchange", "next", "packets", "sent", "size")

    def __init__(self, exchange: Exchange, packets: list[bytes] | None, size: int) -> None:
        self.exchange = exchange
        self.next: HeldFrame | None = None
        self.packets = packets
        self.size = size
        self.sent = False
        self.confirmed = False


@final
class Exchange:
    """``number`` is the connection's number on the link; ``held`` the bytes of entries that are not confirmed and of
    packets that are not answered; ``over``: the connection has ended and the remaining entries were dropped."""

    __slots__ = ("_awaiting", "_completed", "_delivered", "_freed", "_newest", "_oldest", "held", "number", "over")

    def __init__(self, number: int) -> None:
        self.number = number
        # A linked list: most connections hold nothing most of the time, and a queue object for each costs more.
        self._oldest: HeldFrame | None = None
        self._newest: HeldFrame | None = None
        self.held = 0
        self._freed = 0  # bytes of answered packets that were confirmed before, until ``take_freed``
        self.over = False
        # Created on first use: most vehicles are idle, and two empty tables cost each of them 128 bytes.
        self._awaiting: dict[int, tuple[HeldFrame, int]] | None = None  # vehicle's identifiers -> unanswered packets
        self._delivered: dict[int, int] | None = None  # the edge's identifiers -> PUBLISHED, ANSWERED or RELEASED
        self._completed: set[int] | None = None  # identifiers whose PUBREL is dropped after ``reopen``

    # From the vehicle

    def up(self, packets: list[bytes]) -> HeldFrame:
        """Keep packets from the vehicle; returns the entry to send, which owns the list."""
        entry = HeldFrame(self, packets, 0)
        delivered = self._delivered
        size = 0
        for index, raw in enumerate(packets):
            kind = raw[0] & 0xF0
            if kind == _PUBLISH:
                if raw[0] & _QOS:
                    self._await(publish_packet_id(raw), entry, index)
            elif kind in _ENDS:
                if delivered is not None:
                    delivered.pop(ack_packet_id(raw), None)
            elif kind == _PUBREC:
                self._received(raw)
            elif kind in _ASKS:
                self._await(ack_packet_id(raw), entry, index)
            size += len(raw)
        entry.size = size
        self._keep(entry)
        return entry

    def close(self) -> HeldFrame:
        """The vehicle has disconnected; returns the CLOSE entry to send."""
        entry = HeldFrame(self, None, 0)
        self._keep(entry)
        return entry

    def _keep(self, entry: HeldFrame) -> None:
        if self._newest is None:
            self._oldest = entry
        else:
            self._newest.next = entry
        self._newest = entry
        self.held += entry.size

    def _await(self, packet_id: int, entry: HeldFrame, index: int) -> None:
        if packet_id == 0:
            return
        if self._awaiting is None:
            self._awaiting = {}
        elif packet_id in self._awaiting:
            self._drop(self._awaiting[packet_id])
        self._awaiting[packet_id] = (entry, index)

    def _drop(self, waiting: tuple[HeldFrame, int]) -> None:
        """A packet is answered, or another one has its identifier."""
        entry, index = waiting
        packets = entry.packets
        if packets is not None and entry.confirmed:
            self.held -= len(packets[index])
            self._freed += len(packets[index])
            packets[index] = b""

    def _received(self, raw: bytes) -> None:
        packet_id = ack_packet_id(raw)
        delivered = self._delivered
        if delivered is None or packet_id not in delivered:
            return
        if is_error(ack_reason(raw)):
            del delivered[packet_id]  # the exchange ends here, section 4.3.3
        else:
            delivered[packet_id] = ANSWERED

    # From the edge

    def down(self, body: bytes, packets: list[bytes]) -> bytes:
        """Note the packets of a DATA frame for the vehicle (``body`` is all of them); returns the bytes to write."""
        whole = True
        for index, raw in enumerate(packets):
            kind = raw[0] & 0xF0
            if kind == _PUBLISH:
                if raw[0] & _QOS:
                    packet_id = publish_packet_id(raw)
                    self._deliver(packet_id, PUBLISHED)
                    if self._completed is not None:
                        self._completed.discard(packet_id)
            elif kind == _PUBREL:
                if self._is_repeat(ack_packet_id(raw)):
                    packets[index] = b""
                    whole = False
            elif kind in _ANSWERS:
                self._answered(kind, ack_packet_id(raw))
        return body if whole else b"".join(packets)

    def _is_repeat(self, packet_id: int) -> bool:
        if self._delivered is not None and self._delivered.get(packet_id) == RELEASED:
            return True
        if self._completed is not None and packet_id in self._completed:
            return True
        self._deliver(packet_id, RELEASED)
        return False

    def _deliver(self, packet_id: int, state: int) -> None:
        if self._delivered is None:
            self._delivered = {}
        self._delivered[packet_id] = state

    def _answered(self, kind: int, packet_id: int) -> None:
        awaiting = self._awaiting
        waiting = None if awaiting is None else awaiting.get(packet_id)
        if awaiting is None or waiting is None:
            return
        entry, index = waiting
        packets = entry.packets
        if packets is None or (packets[index][0] & 0xF0 == _PUBREL) != (kind == _PUBCOMP):
            return  # a late answer to an older packet
        del awaiting[packet_id]
        if entry.confirmed:
            self._drop(waiting)
        else:
            packets[index] = b""

    # The link

    def confirmed(self, entry: HeldFrame) -> int:
        """The edge has stored ``entry``, the oldest, on its disk. Returns how many bytes less are held."""
        if self._oldest is not entry:
            return 0
        self._oldest, entry.next = entry.next, None
        if self._oldest is None:
            self._newest = None
        freed = entry.size
        if self._awaiting and entry.packets is not None:
            freed -= self._keep_unanswered(entry, entry.packets)
        self.held -= freed
        return freed

    def _keep_unanswered(self, entry: HeldFrame, packets: list[bytes]) -> int:
        """Drop all packets of ``entry`` but those without an answer. Returns the bytes of these."""
        kept = 0
        for index, raw in enumerate(packets):
            if raw:
                if self._awaits(entry, index, raw):
                    kept += len(raw)
                else:
                    packets[index] = b""
        entry.confirmed = True
        return kept

    def _awaits(self, entry: HeldFrame, index: int, raw: bytes) -> bool:
        kind = raw[0] & 0xF0
        if kind == _PUBLISH:
            packet_id = publish_packet_id(raw) if raw[0] & _QOS else 0
        else:
            packet_id = ack_packet_id(raw) if kind in _ASKS else 0
        waiting = None if self._awaiting is None else self._awaiting.get(packet_id)
        return waiting is not None and waiting[0] is entry and waiting[1] == index

    def take_freed(self) -> int:
        """The bytes that are held no more since the last call, because their packets were answered late."""
        freed, self._freed = self._freed, 0
        return freed

    def entries(self) -> list[HeldFrame]:
        """All kept entries, the oldest first."""
        found = []
        entry = self._oldest
        while entry is not None:
            found.append(entry)
            entry = entry.next
        return found

    def unacked(self) -> list[int]:
        """Identifiers of PUBLISHes that the vehicle has not acknowledged, in the order in which they were sent."""
        return [] if self._delivered is None else list(self._delivered)

    def reopen(self) -> None:
        """The connection is about to be attached again: from now on PUBRELs are dropped for the messages that the
        vehicle has completed meanwhile."""
        completed: set[int] = set()
        for entry in self.entries():
            for raw in entry.packets or ():
                if raw and raw[0] & 0xF0 == _PUBCOMP:
                    completed.add(ack_packet_id(raw))
        # An identifier that is in use again shows that the edge has processed the completion.
        self._completed = completed.difference(self._delivered or ()) or None

    def frame(self, entry: HeldFrame) -> bytes:
        """The body of the frame for ``entry``, which counts as sent from now on."""
        packets = entry.packets
        if packets is None:
            return b""
        entry.sent = True
        return packets[0] if len(packets) == 1 else b"".join(packets)

    def replay(self) -> list[HeldFrame]:
        """The entries to send on the next link, in order. Entries with nothing left to send are dropped."""
        kept: list[HeldFrame] = []
        found = self.entries()
        found = self._withheld(found) + found
        self._clear()
        for entry in found:
            if entry.sent and entry.packets is not None:
                _repeat(entry.packets)
            if entry.packets is None or any(entry.packets):
                self._keep(entry)
                kept.append(entry)
        return kept

    def _withheld(self, held: list[HeldFrame]) -> list[HeldFrame]:
        """New entries for the packets that were confirmed and not answered, those of each frame in one. The edge has
        forgotten with the link that it owes the answers."""
        again: dict[HeldFrame, HeldFrame] = {}
        awaiting = self._awaiting
        if not awaiting:
            return []
        present = set(held)
        for packet_id, (frame, index) in list(awaiting.items()):
            packets = frame.packets
            if packets is None or frame in present:
                continue
            entry = again.get(frame)
            if entry is None:
                entry = again[frame] = HeldFrame(self, [], 0)
                entry.sent = True
            if entry.packets is not None:
                awaiting[packet_id] = (entry, len(entry.packets))
                entry.packets.append(packets[index])
                entry.size += len(packets[index])
        return list(again.values())

    def _clear(self) -> None:
        for entry in self.entries():
            entry.next = None
        self._oldest = self._newest = None
        self.held = self._freed = 0

    def abandon(self) -> None:
        """The connection is over: drop all entries."""
        self.over = True
        self._clear()
        self._awaiting = None
        self._delivered = None


def _repeat(packets: list[bytes]) -> None:
    """Turn sent packets into what may be sent again: set DUP, and drop QoS 0."""
    for index, raw in enumerate(packets):
        if raw and raw[0] & 0xF0 == _PUBLISH:
            packets[index] = with_dup(raw) if raw[0] & _QOS else b""
