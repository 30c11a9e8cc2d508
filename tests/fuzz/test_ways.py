"""Headers of the PROXY protocol, requests and frames of WebSocket: a slice of ``scripts/fuzz --ways``."""

from __future__ import annotations

from collections import Counter

import pytest

from mesh.transport.upgrade import Rules
from tests.fuzz.target_ways import ROUND, run_ways
from tests.fuzz.watch import Breach

ROUNDS = 4


def test_any_pieces_give_the_same_as_a_simple_reader() -> None:
    ends: Counter[str] = Counter()
    for number in range(ROUNDS):
        ends += run_ways(1, number)
    assert ends.total() == ROUNDS * ROUND
    for end in (
        "header", "wrong header", "short header", "request 101", "request 400", "request 403", "request short",
        "frames open", "frames failed", "frames closed",
    ):  # fmt: skip
        assert ends[end] > ends.total() // 100, f"too few cases end as {end}: {ends}"


def test_a_failure_names_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rules, "check", lambda rules, headers: None)
    with pytest.raises(Breach, match=r"seed 1, round 0, case \d+ \(requested\): Breach\("):
        run_ways(1, 0)
