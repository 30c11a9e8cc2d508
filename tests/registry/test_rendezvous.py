"""The choice of an edge for a new vehicle."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mesh.registry.rendezvous import choose, score

names = st.text(min_size=1, max_size=20)
weights = st.floats(min_value=0.01, max_value=100.0)
pools = st.dictionaries(names, weights, min_size=1, max_size=12)


GOLDEN = [
    "edge-3",
    "edge-5",
    "edge-1",
    "edge-5",
    "edge-1",
    "edge-2",
    "edge-1",
    "edge-3",
    "edge-3",
    "edge-3",
]


def test_known_choices_never_change() -> None:
    """The hash is part of the mesh's contract: these choices must never change, on any machine."""
    edges = {f"edge-{number}": 1.0 for number in range(1, 6)}
    chosen = [choose(f"VIN{number:05d}", edges) for number in range(10)]
    assert chosen == GOLDEN


@given(names, pools)
def test_order_of_edges_does_not_affect_the_choice(vehicle: str, edges: dict[str, float]) -> None:
    assert choose(vehicle, edges) == choose(vehicle, dict(reversed(edges.items())))


@given(names, pools, names, weights)
def test_new_edge_moves_no_vehicle_between_others(
    vehicle: str, edges: dict[str, float], new: str, weight: float
) -> None:
    before = choose(vehicle, {name: value for name, value in edges.items() if name != new})
    after = choose(vehicle, {**edges, new: weight})
    assert after in (before, new)


@given(names, pools, st.data())
def test_lost_edge_moves_only_its_own_vehicles(vehicle: str, edges: dict[str, float], data: st.DataObject) -> None:
    lost = data.draw(st.sampled_from(sorted(edges)))
    before = choose(vehicle, edges)
    after = choose(vehicle, {name: value for name, value in edges.items() if name != lost})
    assert before == lost or after == before


@given(names, names, weights)
def test_score_is_positive_and_grows_with_the_weight(vehicle: str, edge: str, weight: float) -> None:
    assert 0 < score(vehicle, edge, weight) < score(vehicle, edge, weight * 2)


def test_shares_follow_the_weights() -> None:
    edges = {"small": 1.0, "middle": 2.0, "large": 5.0}
    count = Counter(choose(f"VIN{number}", edges) for number in range(20_000))
    for name, weight in edges.items():
        assert abs(count[name] / 20_000 - weight / 8.0) < 0.02


def test_edges_without_weight_get_no_vehicle() -> None:
    assert choose("V", {}) is None
    assert choose("V", {"drained": 0.0}) is None
    assert choose("V", {"drained": 0.0, "open": 0.1}) == "open"
