"""The table of the conventions detects violations of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.version import VERSION
from tests.support.schema import violations
from tools.tracing.spanvalue import Scalar, SpanValue

TEMPLATE = "vehicles/{vehicle}/cmd"
RIGHT = SpanValue(
    trace_id="a" * 32,
    span_id="b" * 16,
    parent_id="c" * 16,
    name=f"process {TEMPLATE}",
    service="mesh-edge",
    node="edge-1",
    kind=5,
    start_ns=1,
    end_ns=2,
    attributes={
        "messaging.system": "mqtt",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "vehicles/V1/cmd/on",
        "messaging.destination.template": TEMPLATE,
        "messaging.client.id": "core-1",
        "messaging.message.body.size": 3,
        "messaging.mqtt.reason_code": 0x97,
        "network.transport": "tcp",
        "network.peer.address": "192.0.2.7",
        "network.peer.port": 50123,
        "server.address": "192.0.2.1",
        "server.port": 7001,
        "mesh.vehicle": "V1",
        "error.type": "0x97",
    },
    links=("c" * 16,),
    error="quota exceeded",
    scope=("mesh", VERSION),
    resource={
        "service.name": "mesh-edge", "service.version": VERSION, "service.instance.id": "edge-1", "mesh.name": "demo",
    },
)  # fmt: skip


def test_valid_span_passes() -> None:
    assert violations(RIGHT) == []
    assert violations(RIGHT, "V1") == []


@pytest.mark.parametrize("name", sorted(RIGHT.attributes))
def test_missing_attribute_is_detected(name: str) -> None:
    attributes = {key: value for key, value in RIGHT.attributes.items() if key != name}
    assert violations(replace(RIGHT, attributes=attributes), "V1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"messaging.message.body.size": "3"},
        {"network.peer.port": "50123"},
        {"network.transport": "quic"},
        {"messaging.client.id": ""},
        {"messaging.operation.type": "receive"},
        {"messaging.operation.name": "relay"},
        {"messaging.destination.template": "vehicles/{vehicle}/cmd/#"},
        {"messaging.destination.template": "vehicles/V1/cmd"},
        {"messaging.mqtt.reason_code": 0x10},
        {"error.type": "0x80"},
        {"messaging.mqtt.topic": "x"},
    ],
)
def test_wrong_attribute_is_detected(wrong: dict[str, Scalar]) -> None:
    assert violations(replace(RIGHT, attributes={**RIGHT.attributes, **wrong}))


@pytest.mark.parametrize(
    "wrong",
    [
        replace(RIGHT, kind=3),
        replace(RIGHT, name="process vehicles/V1/cmd/on"),
        replace(RIGHT, service="mesh-door"),
        replace(RIGHT, links=()),
        replace(RIGHT, parent_id=""),
        replace(RIGHT, error=None),
        replace(RIGHT, error="failed with 0x97"),
        replace(RIGHT, scope=("mesh", "")),
        replace(RIGHT, resource={**RIGHT.resource, "service.version": "0"}),
        replace(RIGHT, resource={"service.name": "mesh-edge", "service.version": VERSION, "mesh.name": "demo"}),
    ],
)
def test_wrong_span_is_detected(wrong: SpanValue) -> None:
    assert violations(wrong)
