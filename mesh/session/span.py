"""What a message on its way knows of its tracing: a span to end, and the context that its receiver gets.

It knows neither how a span is made nor where it goes: the telemetry room derives it. What always holds: a span is ended
once, by the one that started it or was given it; to end it neither waits nor raises.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from mesh.wire.tracecontext import TraceContext


@mypyc_attr(allow_interpreted_subclasses=True)
class Span:
    """A span under way. ``context`` is what a receiver gets as its parent."""

    __slots__ = ("context",)

    def __init__(self, context: TraceContext) -> None:
        self.context = context

    def end(self, reason: int = 0) -> None:
        """End the span now. ``reason`` is an MQTT reason code, which says whether it failed."""
