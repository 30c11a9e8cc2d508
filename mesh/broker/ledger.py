"""Which QoS 1 messages of one core an edge has taken, so that it recognises a repeat over the tier link.

A core repeats the messages that were not acknowledged when the link broke. The edge may have taken them already, and a
vehicle could not tell the second copy from a new message: DUP is not passed on [MQTT-3.3.1-3]. It knows packet
identifiers: never topics or queues. What always holds:

* a core numbers its messages for an edge in order and repeats them in that order, so every message between the first
  and the last one taken was taken; identifiers count modulo 65535, and far fewer than half of that are in flight;
* each process of the core starts to count again, so its ``instance`` is part of the ledger;
* a refused message is never between them: a repeat of it is a new message, and its publisher gets a new answer.
"""

from __future__ import annotations

from typing import Final, final

_IDENTIFIERS: Final = 65_535
_SPAN: Final = 16_384  # identifiers that are remembered: twice what a core has in flight

# The user property of a core's CONNECT that names its process.
INSTANCE: Final = "mesh-instance"


@final
class Ledger:
    """``first`` to ``last`` are the packet identifiers taken, 0 for none; ``item`` is the ledger's journal item."""

    __slots__ = ("first", "instance", "item", "last", "touched")

    def __init__(self, instance: str, first: int = 0, last: int = 0) -> None:
        self.instance = instance
        self.first = first
        self.last = last
        self.item = 0
        self.touched = False  # the ledger is newer than its journal record

    def take(self, packet_id: int) -> None:
        """The message with ``packet_id`` was taken. It follows all messages taken before, or was refused before them:
        then the ledger has it only if no other one is between."""
        if self._is_before(packet_id):
            if (self.first - packet_id) % _IDENTIFIERS == 1 and (self.last - packet_id) % _IDENTIFIERS < _SPAN:
                self.first = packet_id
            return
        self.last = packet_id
        if self.first == 0:
            self.first = packet_id
        elif (packet_id - self.first) % _IDENTIFIERS >= _SPAN:
            self.first = (packet_id - _SPAN) % _IDENTIFIERS + 1

    def refuse(self, packet_id: int) -> None:
        """The message with ``packet_id`` was refused: forget all messages taken before it."""
        if not self._is_before(packet_id):
            self.forget()

    def _is_before(self, packet_id: int) -> bool:
        return self.first != 0 and 0 < (self.first - packet_id) % _IDENTIFIERS <= _SPAN

    def forget(self) -> None:
        """The core starts to count again: forget all messages taken so far."""
        self.first = 0
        self.last = 0

    def has(self, packet_id: int) -> bool:
        """Whether a repeated message with ``packet_id`` was taken before."""
        return self.last != 0 and (self.last - packet_id) % _IDENTIFIERS <= (self.last - self.first) % _IDENTIFIERS
