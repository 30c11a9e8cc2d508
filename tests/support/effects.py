"""Which tests show the effect of which key of the topology: each live key needs one.

A test of a live key is marked with ``effect_of``; ``tests/node/test_live_keys.py`` compares the marks with the
declarations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., object])

SHOWN: dict[str, list[str]] = {}  # keys, as in the topology's dataclasses, with the names of their tests


def effect_of(*keys: str) -> Callable[[Test], Test]:
    """Marks a test that shows what a change of these keys does, before and after it."""

    def mark(test: Test) -> Test:
        for key in keys:
            SHOWN.setdefault(key, []).append(test.__name__)
        return test

    return mark
