"""A short run of the broker fuzzer; ``scripts/fuzz`` runs millions of packets."""

from __future__ import annotations

import pytest

from tests.fuzz.rounds import Failure, run_round
from tests.fuzz.target_engine import Tally, World
from tests.fuzz.watch import Breach

SEED = 20_261_126
SEQUENCES = 120


@pytest.mark.parametrize("number", range(4))
def test_a_round_of_fuzzed_sequences_does_no_harm(number: int) -> None:
    tally = run_round(SEED, number, SEQUENCES)
    assert tally.sequences == SEQUENCES
    assert tally.judged > 60 * SEQUENCES, "most packets must reach the broker"
    assert tally.refused > 100, "a good part of the packets must be wrong"
    assert tally.neighbour > (10 if tally.holding else 100)


def test_a_round_can_be_replayed() -> None:
    assert run_round(SEED, 5, 20) == run_round(SEED, 5, 20)


def test_a_failure_names_its_seed_and_the_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(world: World) -> None:
        raise Breach("as an example")

    monkeypatch.setattr(World, "_advance", crash)
    replay = r"as an example\nreplay it with scripts/fuzz --seed 1 --round 2 --of 30\n# (one|other)"
    with pytest.raises(Failure, match=replay):
        run_round(1, 2, 30)


def test_tallies_add_up() -> None:
    total = Tally(1, 2, 3, 4, 5, 6, 7)
    total.add(Tally(1, 1, 1, 1, 1, 1, 1))
    assert total == Tally(2, 3, 4, 5, 6, 7, 8)
    assert total.judged == 9
