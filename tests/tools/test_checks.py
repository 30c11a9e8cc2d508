"""How ``scripts/test`` reads the summary of pytest."""

from __future__ import annotations

import pytest

from tools.checks import counts


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("1 failed in 9.9s\n.....\n12 passed, 3 skipped, 2 deselected in 4.20s\nunder test: x\n", (12, 0, 3)),
        ("1 failed, 3 passed, 2 errors in 83.10s (0:01:23)\n", (3, 3, 0)),
        ("the run was killed\n", (0, 0, 0)),
    ],
)
def test_the_last_summary_of_a_run_is_counted(output: str, found: tuple[int, int, int]) -> None:
    assert counts(output) == found
