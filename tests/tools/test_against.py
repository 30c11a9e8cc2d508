"""The verdicts of ``scripts/bench against``: when a row counts as worse."""

from __future__ import annotations

from mesh.bench.run import Connected
from tools.benchmark.against import MISSING, SIDES, Judged, Turn, chosen, plain, table


def judged(*rounds: list[tuple[float, float, float]]) -> Judged:
    """A row with the costs of its three sides (new, old, old again) for each turn of each round."""
    (row,) = chosen("connect-9000")

    def turn(costs: tuple[float, float, float]) -> Turn:
        figures = {
            side: Connected("x", 1, 1.0, 2.0, {"door": cost}, {"door": 1.0})
            for side, cost in zip(SIDES, costs, strict=True)
        }
        return Turn(figures, dict.fromkeys(SIDES, 1))

    return Judged(row, [[turn(costs) for costs in turns] for turns in rounds])


def test_without_noise_three_per_cent_are_allowed() -> None:
    assert judged([(102.9, 100.0, 100.0)]).verdict == "holds"
    assert judged([(103.1, 100.0, 100.0)]).verdict == "WORSE"


def test_worse_beyond_the_noise_needs_enough_rounds() -> None:
    rounds = [[(105.0, 100.0, 102.0)], [(105.0, 100.0, 98.0)]]
    assert judged(*rounds).verdict == "within noise"
    assert judged(*rounds * 8).verdict == "WORSE"


def test_a_round_counts_the_median_ratio_of_its_turns() -> None:
    drifting = [(100.0, 100.0, 100.0), (300.0, 300.0, 300.0), (900.0, 300.0, 300.0)]
    one = judged(drifting, [], drifting)
    assert one.ratios("new") == [1.0, 1.0]
    assert one.verdict == "holds"


def test_a_row_without_a_measurement_is_missing() -> None:
    assert judged([], []).verdict == MISSING
    assert MISSING in table([judged([], [])])
    assert plain(judged([], []))["limit"] is None


def test_the_table_shows_all_sides_and_both_ratios() -> None:
    line = table([judged([(110.0, 100.0, 99.0)], [(120.0, 100.0, 101.0)])]).splitlines()[1]
    assert "115.00" in line
    assert "us/connection" in line
    assert "1.150 (1.100 to 1.200)" in line
    assert "1.000 (0.990 to 1.010)" in line
    assert line.endswith("WORSE")
