"""A small OTLP/gRPC receiver in this process, for the demonstration and the tests.

It knows how spans arrive, and keeps the latest; it does not interpret them. What always holds: it keeps a bounded
number of spans and drops the oldest; it listens on loopback by default. It does not store traces on disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Condition
from time import monotonic
from typing import Final, final

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from mesh.telemetry.convention import INSTANCE, SERVICE
from tools.tracing.spanvalue import Scalar, SpanValue

# A span takes about 2 KB here, so 20,000 take 40 MB: about 2,000 messages with all their hops.
LIMIT: Final = 20_000
# One thread for each node that sends at the same time; further nodes wait about a millisecond.
WORKERS: Final = 4


@final
class Collector:
    """Listens from its creation until ``close``. ``OSError`` if the port is taken; port 0 takes a free one."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, limit: int = LIMIT) -> None:
        self._spans: deque[SpanValue] = deque(maxlen=limit)
        self._arrived = Condition()
        # Two receivers on one port would each get a part of every trace.
        self._server = grpc.server(ThreadPoolExecutor(WORKERS, "otlp"), options=(("grpc.so_reuseport", 0),))
        add_TraceServiceServicer_to_server(_Service(self._take), self._server)  # type: ignore[no-untyped-call]
        try:
            self.port = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen for traces on {host}:{port}; is the port in use?") from error
        self.endpoint = f"http://{host}:{self.port}"
        self._server.start()

    def spans(self) -> list[SpanValue]:
        """All spans kept, in the order of arrival."""
        with self._arrived:
            return list(self._spans)

    def trace(self, trace_id: str) -> list[SpanValue]:
        """The spans of one trace."""
        return [span for span in self.spans() if span.trace_id == trace_id]

    def traces(self) -> list[str]:
        """Identifiers of the traces, the newest last."""
        return list(dict.fromkeys(span.trace_id for span in self.spans()))

    def wait(self, met: Callable[[list[SpanValue]], bool], seconds: float) -> list[SpanValue]:
        """Wait until the spans meet a condition; returns all spans. Raises ``TimeoutError``. It blocks, so do not call
        it on an event loop.
        """
        end = monotonic() + seconds
        with self._arrived:
            while not met(list(self._spans)):
                left = end - monotonic()
                if left <= 0.0 or not self._arrived.wait(left):
                    if met(list(self._spans)):
                        break
                    raise TimeoutError(f"the {len(self._spans)} spans received do not meet the condition")
            return list(self._spans)

    def clear(self) -> None:
        """Forget all spans."""
        with self._arrived:
            self._spans.clear()

    def close(self, seconds: float = 1.0) -> None:
        """Stop listening; requests in progress get ``seconds`` to end."""
        self._server.stop(seconds).wait(seconds)

    def _take(self, request: ExportTraceServiceRequest) -> None:
        spans = list(spans_of(request))
        with self._arrived:
            self._spans.extend(spans)
            self._arrived.notify_all()


@final
class _Service(TraceServiceServicer):
    def __init__(self, take: Callable[[ExportTraceServiceRequest], None]) -> None:
        self._take = take

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        self._take(request)
        return ExportTraceServiceResponse()


def spans_of(request: ExportTraceServiceRequest) -> Iterator[SpanValue]:
    """The spans of one OTLP request as values."""
    for group in request.resource_spans:
        about = _scalars(group.resource.attributes)
        for scoped in group.scope_spans:
            for span in scoped.spans:
                yield _value(span, about, (scoped.scope.name, scoped.scope.version))


def _value(span: Span, resource: dict[str, Scalar], scope: tuple[str, str]) -> SpanValue:
    return SpanValue(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        service=str(resource.get(SERVICE, "")),
        node=str(resource.get(INSTANCE, "")),
        kind=int(span.kind),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_scalars(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
        error=span.status.message if span.status.code == Status.STATUS_CODE_ERROR else None,
        scope=scope,
        resource=resource,
    )


def _scalars(pairs: Iterable[KeyValue]) -> dict[str, Scalar]:
    return {pair.key: _scalar(pair.value) for pair in pairs}


def _scalar(value: AnyValue) -> Scalar:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "bool_value":
            return value.bool_value
    return str(value)
