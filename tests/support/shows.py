"""The decorator that names the normative statements that a test shows.

``scripts/conformance`` reads ``@shows(v5="3.1.2-4 3.1.2-5", v3="3.1.2-6")`` above a test, without running
anything, to make docs/conformance.md. The statements are in tests/conformance/statements, in our own words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def shows(*, v5: str = "", v3: str = "") -> Callable[[F], F]:
    """Statement numbers of MQTT 5.0 and of MQTT 3.1.1, separated by spaces."""
    assert v5 or v3, "shows() needs at least one statement number"
    return lambda function: function
