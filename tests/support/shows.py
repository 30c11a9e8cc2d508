"""Which normative statements of the specifications a test shows.

``@shows(v5="3.1.2-4 3.1.2-5", v3="3.1.2-6")`` above a test is what ``scripts/conformance`` reads, without running
anything, to make docs/conformance.md. The statements are in tests/conformance/statements, in our own words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])


def shows(*, v5: str = "", v3: str = "") -> Callable[[F], F]:
    """Numbers of statements, with blanks between them: of MQTT 5.0 and of MQTT 3.1.1."""
    assert v5 or v3, "name a statement"
    return lambda function: function
