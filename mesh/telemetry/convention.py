"""Names and attributes of spans: OpenTelemetry's semantic conventions for messaging.

It knows names only, and converts a ``LiveSpan`` into the SDK's ``ReadableSpan`` on the export thread. What always
holds: the name of a span has few different values, because its destination is a template; values of a single message
are attributes. Source: OpenTelemetry semantic conventions 1.44, "Messaging spans". Messages are pushed to every node of
the mesh, so a node takes a message in with ``process``; ``receive`` is for consumers that pull. Spans within a node
have no operation type. Attributes specific to MQTT are in ``messaging.mqtt``, as the conventions demand.
"""

from __future__ import annotations

from typing import Final, final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from mesh.broker.peer import Peer
from mesh.broker.trace import CLIENT, CONSUMER, PROCESS, PRODUCER, RELAY, SEND
from mesh.policy.template import Template
from mesh.telemetry.spans import LiveSpan
from mesh.version import VERSION
from mesh.wire.reasons import is_error, name_of
from mesh.wire.tracecontext import TraceContext

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
SCOPE: Final = "mesh"

SYSTEM: Final = "messaging.system"
DESTINATION: Final = "messaging.destination.name"
TEMPLATE: Final = "messaging.destination.template"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
CLIENT_ID: Final = "messaging.client.id"
BODY_SIZE: Final = "messaging.message.body.size"
REASON_CODE: Final = "messaging.mqtt.reason_code"
ERROR_TYPE: Final = "error.type"
PEER_ADDRESS: Final = "network.peer.address"
PEER_PORT: Final = "network.peer.port"
TRANSPORT: Final = "network.transport"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
VEHICLE: Final = "mesh.vehicle"
MESH: Final = "mesh.name"
SERVICE: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
INSTANCE: Final = "service.instance.id"

_TYPES: Final[dict[str, str]] = {PROCESS: "process", SEND: "send", RELAY: "send"}
_KINDS: Final[dict[int, SpanKind]] = {
    CLIENT: SpanKind.CLIENT,
    PRODUCER: SpanKind.PRODUCER,
    CONSUMER: SpanKind.CONSUMER,
}
_OK: Final = Status(StatusCode.UNSET)
_NO_STATE: Final = TraceState()
_WILDCARDS: Final = frozenset(("0.0.0.0", "::"))

Value = str | int


def resource(service: str, node: str, mesh: str) -> Resource:
    """The source of the spans: ``service`` is the kind of node (``mesh-edge``), ``node`` its name."""
    return Resource({SERVICE: service, SERVICE_VERSION: VERSION, INSTANCE: node, MESH: mesh}, SCHEMA)


@final
class Convention:
    """Converts spans. ``topics`` gives the vehicle and the low-cardinality form of a topic."""

    def __init__(self, resource: Resource, topics: Template) -> None:
        self._resource = resource
        self._topics = topics
        self._scope = InstrumentationScope(SCOPE, VERSION, SCHEMA)

    def readable(self, span: LiveSpan) -> ReadableSpan:
        """The span in the form of the SDK's exporters."""
        template = self._topics.low_cardinality(span.topic) if span.topic else ""
        vehicle = span.vehicle or self._topics.vehicle_of(span.topic) or ""
        context = span.context
        # The parent of a span of this kind may be on another node; the parent of any other span is on this node.
        remote = span.operation == PROCESS or span.kind == CLIENT
        parent = _span_context(context, span.parent_id, remote) if span.parent_id else None
        failed = is_error(span.reason)
        return ReadableSpan(
            name=f"{span.operation} {template}" if template else span.operation,
            context=_span_context(context, context.span_id, False),
            parent=parent,
            resource=self._resource,
            attributes=_attributes(span, template, vehicle),
            links=_links(span, parent),
            kind=_KINDS.get(span.kind, SpanKind.INTERNAL),
            status=Status(StatusCode.ERROR, name_of(span.reason)) if failed else _OK,
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )


def _links(span: LiveSpan, parent: SpanContext | None) -> tuple[Link, ...]:
    """Links to the context in which the message was created: for each ``process`` span with a parent, and for a
    delivery if there are several.
    """
    if span.link_id:
        return (Link(_span_context(span.context, span.link_id, False)),)
    return (Link(parent),) if span.operation == PROCESS and parent is not None else ()


def _attributes(span: LiveSpan, template: str, vehicle: str) -> dict[str, Value]:
    attributes: dict[str, Value] = {SYSTEM: "mqtt", OPERATION_NAME: span.operation}
    if span.operation in _TYPES:
        attributes[OPERATION_TYPE] = _TYPES[span.operation]
    if template:
        attributes[DESTINATION] = span.topic
        attributes[TEMPLATE] = template
    if span.client:
        attributes[CLIENT_ID] = span.client
    if vehicle:
        attributes[VEHICLE] = vehicle
    if span.size >= 0:
        attributes[BODY_SIZE] = span.size
    if span.peer is not None:
        _add_network(attributes, span.peer)
    if span.reason:
        attributes[REASON_CODE] = span.reason
    if is_error(span.reason):
        attributes[ERROR_TYPE] = f"0x{span.reason:02x}"
    return attributes


def _add_network(attributes: dict[str, Value], peer: Peer) -> None:
    """The peer, and the server of the connection: the listener that accepted it, or the dialled peer. A Unix socket has
    a path on the dialling side and no name on the accepting side.
    """
    if not peer.address and not peer.listener:
        return
    attributes[TRANSPORT] = "tcp" if peer.port else "unix"
    if peer.address:
        attributes[PEER_ADDRESS] = peer.address
    if peer.port:
        attributes[PEER_PORT] = peer.port
    address, port = _host_and_port(peer.listener) if peer.listener else (peer.address, peer.port)
    if address and address not in _WILDCARDS:
        attributes[SERVER_ADDRESS] = address
    if port:
        attributes[SERVER_PORT] = port


def _host_and_port(listener: str) -> tuple[str, int]:
    """Host and port of a listener's name, such as ``mqtt://[::1]:1883``."""
    place = listener.partition("://")[2].partition("/")[0]
    host, _, port = place.rpartition(":")
    return host.strip("[]"), int(port) if port.isdecimal() else 0


def _span_context(context: TraceContext, span_id: str, remote: bool) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else _NO_STATE
    return SpanContext(int(context.trace_id, 16), int(span_id, 16), remote, TraceFlags(context.flags), state)
