"""A short run of the fuzzer through sockets; ``scripts/fuzz --sockets`` runs longer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.fuzz.target_sockets import LIMITS, fuzz
from tests.support.processes import Processes

pytestmark = pytest.mark.e2e

SEED = 20_261_126
SEQUENCES = 150
GROWTH = 24 << 20  # bytes; a short run includes the warm-up of the processes


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("fuzzed"), ["edge-1", "edge-2"], extra=LIMITS) as running:
        yield running


def test_fuzzed_sequences_do_no_harm(mesh: Processes) -> None:
    tally, _ = asyncio.run(fuzz(mesh, SEED, SEQUENCES, GROWTH))
    assert tally.sequences == SEQUENCES
    assert tally.judged > 40 * SEQUENCES
    assert tally.neighbour > 20
