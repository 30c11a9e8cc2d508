"""An edge compares epochs of one map only."""

from __future__ import annotations

import pytest

from mesh.edge.node import EdgeNode
from mesh.registry.generation import EPOCH_BITS
from mesh.registry.record import Record
from tests.support.configs import config


@pytest.mark.parametrize(
    ("edge", "epoch", "own", "generation", "told", "serves"),
    [
        ("edge-1", 3, 7, 7, 3, True),
        ("edge-1", 3, 7, 7, 4, True),  # the door knows of a move that this edge does not know yet
        ("edge-1", 3, 7, 7, 2, False),
        ("edge-2", 3, 7, 7, 3, False),
        ("edge-1", 3, 7, 8, 1, True),  # the door has a later map, in which epochs began again
        ("edge-2", 3, 7, 8, 1, True),
        ("edge-1", 1, 8, 7, 3, True),  # the door has an earlier map
        ("edge-2", 1, 8, 7, 3, False),
        ("edge-1", 1, 8, 0, 3, True),  # a door of an earlier release
    ],
)
def test_vehicle_is_served_by_the_edge_of_the_later_map(
    edge: str, epoch: int, own: int, generation: int, told: int, serves: bool
) -> None:
    record = Record("CAR-1", edge, "standard", epoch)
    assert EdgeNode(config("edge-1"))._may_serve(record, own, generation << EPOCH_BITS | told) == serves
