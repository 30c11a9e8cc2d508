"""Small versions of all attacks, one after another on one mesh: nothing acknowledged is lost, and every process lives.

The table in docs/security.md comes from full ones (``./scripts/attack``); no test here asserts a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.attacks.attack import Attack, Target
from tests.attacks.attacked import attacked
from tests.attacks.catalogue import ATTACKS
from tests.attacks.runner import run
from tests.support.processes import Processes

pytestmark = pytest.mark.e2e
SIZE = 0.01
LARGER = {"slow_byte": 0.05, "trickled_packets": 0.05, "slow_connects": 0.05, "wildcard_names": 0.02}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Processes, Target]]:
    with attacked(tmp_path_factory.mktemp("attacked")) as running:
        yield running


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(mesh: tuple[Processes, Target], name: str) -> None:
    kind: type[Attack] = ATTACKS[name]
    nodes, target = mesh
    before = {node: nodes.pid(node) for node in nodes.names()}
    size = LARGER.get(name, SIZE)
    result = asyncio.run(run(kind, target, lambda: {node: nodes.pid(node) for node in before}, size, 0.2))
    assert not result.failed, result.failed
    assert result.seen
    assert (result.trips["lost"], result.trips["closes"]) == (0, 0)
    assert result.trips["answered"] == result.trips["sent"]
    assert {node: nodes.pid(node) for node in before} == before
