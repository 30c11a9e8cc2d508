"""The names of the vehicles of a load."""

from __future__ import annotations

import pytest

from mesh.bench.names import VehicleNames
from mesh.policy.pattern import Pattern


@pytest.mark.parametrize(
    ("pattern", "third"),
    [
        ("", "bench-0000003"),
        ("[A-Za-z0-9_-]{1,64}", "bench-0000003"),
        ("[A-Z0-9]{3,32}", "BENCH0000003"),
        ("[A-HJ-NPR-Z0-9]{17}", "BENCH000000000003"),
        ("VIN-[0-9]{4,9}", "VIN-0000003"),
        ("[ab]{1,40}", "a" * 22 + "bb"),
    ],
)
def test_names_match_the_pattern_and_differ(pattern: str, third: str) -> None:
    names = VehicleNames(pattern)
    assert names.name_of(3) == third
    found = [names.name_of(number) for number in (*range(2000), 9_999_999)]
    assert len(set(found)) == 2001
    if pattern:
        assert all(Pattern(pattern).matches(name) for name in found)


def test_a_pattern_with_too_few_names() -> None:
    names = VehicleNames("V[0-9]")
    assert names.name_of(9) == "V9"
    with pytest.raises(ValueError, match=r"the pattern 'V\[0-9\]' has too few names for a load with vehicle 10"):
        names.name_of(10)
