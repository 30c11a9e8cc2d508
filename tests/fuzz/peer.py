"""A client that sends a fuzzed sequence to the broker, over as many connections as it needs."""

from __future__ import annotations

from random import Random
from typing import Final

from mesh.broker.broker import Broker
from mesh.broker.principal import Principal
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import Packet
from tests.fuzz.line import Line
from tests.fuzz.mutate import mutate_bytes, pieces
from tests.fuzz.sequences import Sequence
from tests.support.answers import answer_to

_PATIENCE: Final = 3  # reads after which a client closes a connection that waits for the rest of a packet
BURSTS: Final = (1, 1, 2, 3, 8)  # packets that come with one read
DISCONNECT: Final = b"\xe0"


class Peer:
    """``said`` are the packets of the current connection, for the report of a failure."""

    __slots__ = (
        "_at", "_dice", "_limits", "_reactions", "_stuck", "connections", "handled", "line", "packets", "principal",
        "refused", "said", "sequence",
    )  # fmt: skip

    def __init__(self, dice: Random, sequence: Sequence, principal: Principal, limits: PacketLimits) -> None:
        self._dice = dice
        self._limits = limits
        self._at = 0
        self._reactions: list[bytes] = []
        self.sequence = sequence
        self.principal = principal
        self.line: Line | None = None
        self._stuck = 0
        self.packets = 0
        self.handled = 0
        self.refused = 0
        self.connections = 0
        self.said: list[bytes] = []

    @property
    def finished(self) -> bool:
        """Whether the whole sequence has been sent."""
        return self._at >= len(self.sequence.packets)

    def step(self, broker: Broker) -> None:
        """Send the next few packets, on a new connection if the last one is closed."""
        line = self.line
        if line is None or line.closed:
            line = self._connect(broker)
        elif line.held:
            return
        self._react(line)
        data = b"".join(self._next())
        before = line.handled
        for piece in pieces(self._dice, data):
            line.feed(piece)
        self._stuck = 0 if line.handled > before else self._stuck + 1
        if self._stuck > _PATIENCE:
            line.lose()

    def _connect(self, broker: Broker) -> Line:
        self._count()
        line = self.line = Line(broker, self.principal, self._limits)
        self.connections += 1
        self.said.clear()
        self._reactions.clear()
        packets = self.sequence.packets
        if self.finished or packets[self._at][:1] != b"\x10":
            self._reactions.append(self.sequence.hello)
        return line

    def _count(self) -> None:
        if self.line is not None:
            self.handled += self.line.handled
            self.refused += self.line.refused

    def _next(self) -> list[bytes]:
        """The packets to send now. DISCONNECT is the last packet on a connection."""
        found = self._reactions
        self._reactions = []
        packets = self.sequence.packets
        end = min(self._at + self._dice.choice(BURSTS), len(packets))
        for at in range(self._at, end):
            if packets[at][:1] == DISCONNECT:
                end = at + 1
                break
        found += packets[self._at : end]
        self._at = end
        self.packets += len(found)
        self.said += found
        return found

    def _react(self, line: Line) -> None:
        """Acknowledge received packets, a share of ``polite`` of them."""
        heard, line.heard = line.heard, []
        dice, polite = self._dice, self.sequence.polite
        for packet in heard:
            if dice.random() < polite:
                answer = encoded_answer(packet, self.sequence.protocol)
                if answer:
                    self._reactions.append(answer if dice.random() < 0.98 else mutate_bytes(dice, answer))

    def leave(self) -> None:
        """The sequence has ended: close the socket without DISCONNECT."""
        if self.line is not None:
            self.line.lose()
        self._count()
        self.line = None


def encoded_answer(packet: Packet, protocol: int) -> bytes:
    """The correct answer to a packet; empty if there is none."""
    answer = answer_to(packet)
    return b"" if answer is None else encode(answer, protocol)
