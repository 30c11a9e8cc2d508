"""The edges of a core: slow to confirm a filter, and slow to take a message.

Replaces the router and its tier links: it makes their calls to the broker, at random times.
"""

from __future__ import annotations

from random import Random
from typing import Final

from mesh.broker.broker import Broker
from mesh.broker.dispatcher import Forwarder
from mesh.broker.gate import Gate
from mesh.broker.subscriptions import InterestListener
from mesh.session.inbound import Receipt
from mesh.session.message import Message
from mesh.wire.reasons import IMPLEMENTATION_SPECIFIC_ERROR, NO_MATCHING_SUBSCRIBERS, QUOTA_EXCEEDED, SUCCESS, is_error

_SAFE: Final = "good/"  # the edges never refuse messages of the neighbour
_REASONS: Final = (SUCCESS, SUCCESS, SUCCESS, NO_MATCHING_SUBSCRIBERS, QUOTA_EXCEEDED, IMPLEMENTATION_SPECIFIC_ERROR)


class Edges(Forwarder):
    """Takes some of the messages, and answers later."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._receipts: list[tuple[Message, Receipt]] = []

    def forward(self, message: Message, receipt: Receipt | None) -> None:
        if receipt is not None and self._dice.random() < 0.3:
            receipt.pending += 1
            if receipt.qos == 2 and not receipt.position:  # as the core does: nothing of it is in the journal yet
                receipt.unplaced += 1
            self._receipts.append((message, receipt))

    def answer(self, broker: Broker, all: bool = False) -> None:
        """Give some of the answers, or all."""
        receipts, self._receipts = self._receipts, []
        for message, receipt in receipts:
            if not all and self._dice.random() < 0.5:
                self._receipts.append((message, receipt))
                continue
            receipt.pending -= 1
            reason = SUCCESS if message.topic.startswith(_SAFE) else self._dice.choice(_REASONS)
            if is_error(reason):
                broker.refusals.refuse(message, receipt, reason)
            else:
                receipt.note(reason)
            if receipt.unplaced:
                receipt.unplaced = 0
                broker.placed(receipt)
            else:
                broker.answered(receipt)


class Interests(InterestListener):
    """Makes some of the subscriptions wait for the edges."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._gates: list[Gate] = []
        self.known: set[str] = set()

    def gate(self, filter: str) -> Gate | None:
        if self._dice.random() < 0.8:
            return None
        gate = Gate(1)
        self._gates.append(gate)
        return gate

    def wanted(self, filter: str) -> None:
        if filter in self.known:
            raise AssertionError(f"{filter} is wanted twice")
        self.known.add(filter)

    def unwanted(self, filter: str) -> None:
        self.known.remove(filter)

    def open(self, broker: Broker, all: bool = False) -> None:
        """Open some of the gates, or all."""
        gates, self._gates = self._gates, []
        for gate in gates:
            if all or self._dice.random() < 0.5:
                gate.pending = 0
            else:
                self._gates.append(gate)
        if gates:
            broker.opened()
