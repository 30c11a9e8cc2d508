"""A received, finished span as a plain value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

Scalar = str | int | float | bool


@final
@dataclass(frozen=True, slots=True)
class SpanValue:
    """Identifiers in hexadecimal, ``parent_id`` empty for a root; times in nanoseconds since 1970; ``kind`` as in
    OTLP; ``links``: span identifiers; ``scope``: name and version of the library that made the span.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    service: str
    node: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    error: str | None = None  # the status message of a failed span
    scope: tuple[str, str] = ("", "")
    resource: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def duration_ns(self) -> int:
        """The duration in nanoseconds."""
        return self.end_ns - self.start_ns
