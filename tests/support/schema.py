"""The requirements of OpenTelemetry's semantic conventions for messaging on each span of the mesh, as a table.

It knows spans as a collector gets them. The table is written from the conventions (1.44, "Messaging spans", "Recording
errors") and from docs/tracing.md, and shares no name with the code that makes the spans.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mesh.version import VERSION
from tools.tracing.spanvalue import SpanValue

# opentelemetry/proto/trace/v1/trace.proto, Span.SpanKind
INTERNAL, CLIENT, PRODUCER, CONSUMER = 1, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Rule:
    """One operation of one kind of node: its span kind, operation type (empty: none) and required attributes."""

    kind: int
    type: str
    required: tuple[str, ...] = ()


HOP = ("network.transport",)

# (kind of node, messaging.operation.name)
SPANS: Mapping[tuple[str, str], Rule] = {
    # Pushed to a consumer: "process". Its context is the creation context of the message on this node.
    ("core", "process"): Rule(CONSUMER, "process", ("messaging.message.body.size", *HOP)),
    ("edge", "process"): Rule(CONSUMER, "process", ("messaging.message.body.size", *HOP)),
    # Sent with the span's own context.
    ("core", "relay"): Rule(PRODUCER, "send", HOP),
    ("core", "send"): Rule(PRODUCER, "send", HOP),
    ("edge", "send"): Rule(PRODUCER, "send", HOP),
    # Sent with the received context.
    ("door", "relay"): Rule(CLIENT, "send", HOP),
    # Within a node.
    ("core", "spool"): Rule(INTERNAL, ""),
    ("core", "wait"): Rule(INTERNAL, ""),
    ("edge", "wait"): Rule(INTERNAL, ""),
}

ALWAYS = ("messaging.system", "messaging.operation.name", "messaging.client.id")
OF_A_TOPIC = ("messaging.destination.name", "messaging.destination.template")  # a span whose topic is known

TYPES: Mapping[str, type] = {
    "messaging.system": str,
    "messaging.operation.name": str,
    "messaging.operation.type": str,
    "messaging.destination.name": str,
    "messaging.destination.template": str,
    "messaging.client.id": str,
    "messaging.message.body.size": int,
    "messaging.mqtt.reason_code": int,
    "network.transport": str,
    "network.peer.address": str,
    "network.peer.port": int,
    "server.address": str,
    "server.port": int,
    "error.type": str,
    "mesh.vehicle": str,
}


def violations(span: SpanValue, vehicle: str = "") -> list[str]:
    """The violations of a span. ``vehicle``: the vehicle that it must name."""
    where = f"{span.name} of {span.node}"
    return [f"{where}: {wrong}" for wrong in _wrong(span, vehicle)]


def _wrong(span: SpanValue, vehicle: str) -> Iterator[str]:
    attributes = span.attributes
    operation = attributes.get("messaging.operation.name", "")
    rule = SPANS.get((span.service.removeprefix("mesh-"), str(operation)))
    if rule is None:
        yield f"{span.service} has no operation {operation!r}"
        return
    if span.kind != rule.kind:
        yield f"kind {span.kind}, not {rule.kind}"
    if attributes.get("messaging.operation.type", "") != rule.type:
        yield f"operation type {attributes.get('messaging.operation.type')!r}, not {rule.type!r}"
    if attributes.get("messaging.system") != "mqtt":
        yield "messaging.system is not mqtt"
    if vehicle and attributes.get("mesh.vehicle") != vehicle:
        yield f"vehicle {attributes.get('mesh.vehicle')!r}, not {vehicle!r}"
    yield from _wrong_attributes(attributes, (*ALWAYS, *OF_A_TOPIC, *rule.required))
    yield from _wrong_name(span, str(operation))
    yield from _wrong_network(attributes)
    yield from _wrong_status(span)
    yield from _wrong_links(span, rule)
    yield from _wrong_origin(span)


def _wrong_attributes(attributes: Mapping[str, object], required: tuple[str, ...]) -> Iterator[str]:
    for name in required:
        if name not in attributes:
            yield f"{name} is missing"
    for name, value in attributes.items():
        if name not in TYPES:
            yield f"{name} is not in the table"
        elif type(value) is not TYPES[name] or value == "":
            yield f"{name} is {value!r}"


def _wrong_name(span: SpanValue, operation: str) -> Iterator[str]:
    template = span.attributes.get("messaging.destination.template", "")
    if span.name != f"{operation} {template}".rstrip():
        yield f"the name is not {operation} and the template {template!r}"
    vehicle = str(span.attributes.get("mesh.vehicle", ""))
    if "#" in str(template) or "+" in str(template) or (vehicle and vehicle in str(template)):
        yield f"the template is {template!r}"


def _wrong_network(attributes: Mapping[str, object]) -> Iterator[str]:
    transport = attributes.get("network.transport")
    if transport == "tcp":
        for name in ("network.peer.address", "network.peer.port", "server.address", "server.port"):
            if name not in attributes:
                yield f"{name} is missing"
    elif transport not in (None, "unix"):
        yield f"network.transport is {transport!r}"
    elif "network.peer.port" in attributes:
        yield "network.peer.port without TCP"


def _wrong_status(span: SpanValue) -> Iterator[str]:
    """"Recording errors": status, error.type and a description that does not repeat the code."""
    code = span.attributes.get("messaging.mqtt.reason_code", 0)
    kind = span.attributes.get("error.type")
    if not isinstance(code, int):
        return
    failed = code >= 0x80
    if failed != (span.error is not None) or failed != (kind is not None):
        yield f"reason code {code}, status {span.error!r} and error.type {kind!r} do not agree"
    elif failed and (kind != f"0x{code:02x}" or not span.error or str(kind) in str(span.error)):
        yield f"reason code {code} with error.type {kind!r} and status {span.error!r}"


def _wrong_links(span: SpanValue, rule: Rule) -> Iterator[str]:
    """"Consumer spans": a link to the message's creation context, which is also the parent here."""
    if rule.type == "process":
        expected = (span.parent_id,) if span.parent_id else ()
        if span.links != expected:
            yield f"links {span.links}, not {expected}"
    elif rule.type != "send" and span.links:
        yield f"links {span.links}"


def _wrong_origin(span: SpanValue) -> Iterator[str]:
    if span.scope != ("mesh", VERSION):
        yield f"scope {span.scope}"
    for name in ("service.name", "service.version", "service.instance.id", "mesh.name"):
        if not span.resource.get(name):
            yield f"the resource has no {name}"
    if span.resource.get("service.version") != VERSION:
        yield f"service.version {span.resource.get('service.version')!r}"
