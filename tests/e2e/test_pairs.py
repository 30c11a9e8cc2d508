"""Three random pairs of topologies on a real mesh; ``scripts/pairs`` has more."""

from __future__ import annotations

import pytest

from tests.e2e.pairs import pairs

pytestmark = [pytest.mark.e2e, pytest.mark.ray, pytest.mark.long]
SEED = 12


def test_up_does_what_plan_says_and_leaves_what_a_fresh_mesh_has(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pairs(tmp_path_factory.mktemp("pairs"), SEED) as running:
        running.next(rolling=0.0, refused=0.0)
        running.next(rolling=1.0, refused=0.0)
        running.next(refused=1.0)
        assert set(running.kinds) == {"live", "rolling", "refused"}
