"""The fuzzed sequences of a run, one after the other, from one seed."""

from __future__ import annotations

from random import Random
from typing import Final

from tests.fuzz.draft import Draft, assemble
from tests.fuzz.generate import Cast, Script
from tests.fuzz.mutate import CALM, LIGHT, ROUGH, WILD, mutate

_RATES: Final = (CALM, CALM, LIGHT, LIGHT, LIGHT, LIGHT, ROUGH, ROUGH, WILD)


class Sequence:
    """``packets`` of one client; ``hello`` is a valid CONNECT, to send the rest after the server has closed the
    connection. ``polite`` is the share of received packets that the client acknowledges."""

    __slots__ = ("hello", "packets", "polite", "protocol")

    def __init__(self, packets: list[bytes], hello: bytes, protocol: int, polite: float) -> None:
        self.packets = packets
        self.hello = hello
        self.protocol = protocol
        self.polite = polite


def sequence(dice: Random, cast: Cast, size: int) -> Sequence:
    """One fuzzed sequence of about ``size`` packets."""
    script = Script(dice, cast)
    drafts = script.packets(size)
    other: list[Draft] = Script(dice, cast).packets(min(size, 20))
    packets = mutate(dice, drafts, other, dice.choice(_RATES))
    return Sequence(packets, assemble(script.connect()), script.protocol, dice.choice((0.0, 0.5, 0.9, 1.0)))
