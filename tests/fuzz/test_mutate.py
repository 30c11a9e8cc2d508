"""The fuzzed sequences: valid without mutations, invalid at the given rate, and the same for the same seed."""

from __future__ import annotations

from random import Random

import pytest

from mesh.wire.decode import SERVER, Reader
from mesh.wire.limits import PacketLimits
from tests.fuzz.draft import assemble
from tests.fuzz.generate import Cast, Script
from tests.fuzz.mutate import LIGHT, WILD, mutate, pieces
from tests.fuzz.sequences import sequence

LIMITS = PacketLimits()
CONNECT = 0x10


def read(packets: list[bytes]) -> list[int]:
    """How many packets were read on each connection, ended by CONNECT, before the first that is wrong."""
    counts: list[int] = []
    reader = Reader(LIMITS, SERVER)
    for packet in packets:
        if packet[0] == CONNECT:
            reader = Reader(LIMITS, SERVER)
            counts.append(0)
        counts[-1] += len(reader.feed(packet))
    return counts


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("prefix", ["", "vehicles/V1/"])
def test_sequences_without_mutations_are_valid(protocol: int, prefix: str) -> None:
    for seed in range(20):
        drafts = Script(Random(seed), Cast(prefix), protocol).packets(200)
        packets = [assemble(draft) for draft in drafts]
        assert sum(read(packets)) == len(packets)


def test_the_share_of_invalid_packets_is_the_mutation_rate() -> None:
    for rate in (LIGHT, WILD):
        right = wrong = 0
        for seed in range(30):
            drafts = Script(Random(seed), Cast(), 5).packets(100)
            valid = {assemble(draft) for draft in drafts}
            mutated = mutate(Random(seed), drafts, drafts, rate)
            right += sum(packet in valid for packet in mutated)
            wrong += sum(packet not in valid for packet in mutated)
        assert 0.5 * rate < wrong / (right + wrong) < 1.2 * rate


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, other = (sequence(Random(7), Cast(), 100) for _ in range(2))
    assert (one.packets, one.hello, one.polite) == (other.packets, other.hello, other.polite)
    assert one.packets != sequence(Random(8), Cast(), 100).packets


def test_pieces_join_to_the_whole() -> None:
    dice = Random(1)
    for size in range(200):
        data = dice.randbytes(size)
        cut = pieces(dice, data)
        assert b"".join(cut) == data
