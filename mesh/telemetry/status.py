"""The status of a node's tracer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, final

from mesh.figures.instrument import counter, gauge
from mesh.figures.status import Status


@final
@dataclass(frozen=True, slots=True)
class SpansStatus(Status):
    """Counts of spans: every recorded one is exported, dropped or queued."""

    recorded: Annotated[int, counter("mesh_spans_recorded_total", "Spans of sampled messages that ended.")]
    exported: Annotated[int, counter("mesh_spans_exported_total", "Spans that the OTLP endpoint accepted.")]
    dropped: Annotated[
        int, counter("mesh_spans_dropped_total", "Spans lost: the queue was full, or the endpoint did not accept them.")
    ]
    queued: Annotated[int, gauge("mesh_spans_queued", "Spans that wait to be exported.")]
    suppressed: Annotated[
        int, counter("mesh_traces_suppressed_total", "Messages not traced because the budget of traces was used up.")
    ]
    reachable: Annotated[bool, gauge("mesh_spans_endpoint_up", "Whether the OTLP endpoint accepted the last spans.")]
