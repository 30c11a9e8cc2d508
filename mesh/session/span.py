"""The trace data of a message on its way: a span to end, and the context for its receiver.

It must never know how a span is created or exported: the telemetry room derives the class. What always holds: a span is
ended once, by the code that started it or was given it; ``end`` neither waits nor raises.
"""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from mesh.wire.tracecontext import TraceContext


@mypyc_attr(allow_interpreted_subclasses=True)
class Span:
    """A span that has not ended. ``context`` is the parent context for a receiver."""

    __slots__ = ("context",)

    def __init__(self, context: TraceContext) -> None:
        self.context = context

    def end(self, reason: int = 0) -> None:
        """End the span now. ``reason`` is an MQTT reason code: the span failed if it is an error."""
