"""What a span is called and which attributes it carries: OpenTelemetry's semantic conventions for messaging.

It knows names only, and turns a ``LiveSpan`` into the SDK's ``ReadableSpan``; runs on the export thread. What always
holds: a span's name has few different values, because the destination in it is a template; what differs from message
to message is an attribute. Source: OpenTelemetry semantic conventions 1.44, "Messaging spans". The mesh is an
intermediary that is pushed to, which they leave open: taking a message in has the operation type ``receive``, and
what happens within a node has no type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from mesh.broker.trace import CLIENT, CONSUMER, PRODUCER, RECEIVE, RELAY, SEND
from mesh.telemetry.spans import LiveSpan
from mesh.wire.reasons import is_error, name_of
from mesh.wire.tracecontext import TraceContext

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"

SYSTEM: Final = "messaging.system"
DESTINATION: Final = "messaging.destination.name"
TEMPLATE: Final = "messaging.destination.template"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
BODY_SIZE: Final = "messaging.message.body.size"
ERROR_TYPE: Final = "error.type"
VEHICLE: Final = "mesh.vehicle"
MESH: Final = "mesh.name"
SERVICE: Final = "service.name"
INSTANCE: Final = "service.instance.id"

_TYPES: Final[dict[str, str]] = {RECEIVE: "receive", SEND: "send", RELAY: "send"}
_KINDS: Final[dict[int, SpanKind]] = {
    CLIENT: SpanKind.CLIENT,
    PRODUCER: SpanKind.PRODUCER,
    CONSUMER: SpanKind.CONSUMER,
}
# What a span of these operations continues happened on another node.
_REMOTE_PARENT: Final = frozenset((RECEIVE, RELAY))
_OK: Final = Status(StatusCode.UNSET)
_NO_STATE: Final = TraceState()


def resource(service: str, node: str, mesh: str) -> Resource:
    """Who makes the spans: ``service`` is the kind of node (``mesh-edge``), ``node`` its name."""
    return Resource({SERVICE: service, INSTANCE: node, MESH: mesh}, SCHEMA)


@final
class Convention:
    """``template`` turns a topic into its low-cardinality form; it must be free of side effects, as it runs on the
    export thread.
    """

    def __init__(self, resource: Resource, template: Callable[[str], str]) -> None:
        self._resource = resource
        self._template = template
        self._scope = InstrumentationScope("mesh", schema_url=SCHEMA)

    def readable(self, span: LiveSpan) -> ReadableSpan:
        """The span as the SDK's exporters want it."""
        template = self._template(span.topic)
        context = span.context
        remote = span.operation in _REMOTE_PARENT
        parent = _span_context(context, span.parent_id, remote) if span.parent_id else None
        failed = is_error(span.reason)
        return ReadableSpan(
            name=f"{span.operation} {template}",
            context=_span_context(context, context.span_id, False),
            parent=parent,
            resource=self._resource,
            attributes=_attributes(span, template),
            links=(Link(_span_context(context, span.link_id, False)),) if span.link_id else (),
            kind=_KINDS.get(span.kind, SpanKind.INTERNAL),
            status=Status(StatusCode.ERROR, name_of(span.reason)) if failed else _OK,
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )


def _attributes(span: LiveSpan, template: str) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        SYSTEM: "mqtt",
        OPERATION_NAME: span.operation,
        DESTINATION: span.topic,
        TEMPLATE: template,
    }
    if span.operation in _TYPES:
        attributes[OPERATION_TYPE] = _TYPES[span.operation]
    if span.vehicle:
        attributes[VEHICLE] = span.vehicle
    if span.size >= 0:
        attributes[BODY_SIZE] = span.size
    if is_error(span.reason):
        attributes[ERROR_TYPE] = f"0x{span.reason:02x}"
    return attributes


def _span_context(context: TraceContext, span_id: str, remote: bool) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else _NO_STATE
    return SpanContext(int(context.trace_id, 16), int(span_id, 16), remote, TraceFlags(context.flags), state)
