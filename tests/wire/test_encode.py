"""``encode`` refuses values that do not fit; it does not truncate them."""

from __future__ import annotations

import pytest

from mesh.wire.encode import encode, encode_publish
from mesh.wire.fields import length_size, read_length
from mesh.wire.packets import (
    SUBACK,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
)
from tests.support.golden import properties

LONG = "x" * 65_536


@pytest.mark.parametrize(
    ("packet", "protocol"),
    [
        (Publish(LONG), 5),
        (Publish("a", qos=1), 5),
        (Publish("a", qos=1, packet_id=65_536), 4),
        (Publish("a", qos=3, packet_id=1), 4),
        (Publish("a", properties=properties(user=[("k", LONG)])), 5),
        (Publish("a", properties=properties(correlation_data=LONG.encode())), 5),
        (Publish("a", properties=properties(message_expiry=1 << 32)), 5),
        (Publish("a", properties=properties(message_expiry=-1)), 5),
        (Publish("a", properties=properties(topic_alias=65_536)), 5),
        (Publish("a", properties=properties(payload_format=256)), 5),
        (Publish("a", properties=properties(subscription_ids=[0])), 5),
        (Publish("a", properties=properties(subscription_ids=[268_435_456])), 5),
        (Publish("\ud800"), 5),
        (Connect(client_id=LONG), 5),
        (Connect(keep_alive=65_536), 5),
        (Connack(False, 256), 5),
        (Subscribe(70_000, [Subscription("a")]), 4),
        (Auth(0x18), 4),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, int) else str(value),
)
def test_value_that_does_not_fit_raises_value_error(packet: Packet, protocol: int) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode(packet, protocol)


def test_fields_that_a_version_does_not_have_are_left_out() -> None:
    text = properties(reason_string="why")
    assert encode(Ack(4, 1, 0x87, text), 4) == bytes.fromhex("40020001")
    assert encode(Disconnect(0x87, text), 4) == bytes.fromhex("e000")
    assert encode(SubAck(SUBACK, 1, [1, 0x87], text), 4) == bytes.fromhex("900400010180")
    assert encode(Publish("a", properties=properties(user=[("k", "v")])), 4) == bytes.fromhex("3003000161")
    assert encode(Connack(True, 0), 3) == bytes.fromhex("20020000")
    assert encode(Subscribe(1, [Subscription("a", 1, True, True, 1)]), 4) == bytes.fromhex("8206000100016101")


@pytest.mark.parametrize("payload", [0, 123, 124, 125, 16_379, 16_380, 2_097_148, 2_097_149])
def test_length_field_of_a_publish_is_exact(payload: int) -> None:
    for protocol in (4, 5):
        for qos in (0, 1):
            packet = encode_publish(b"t", bytes(payload), qos, False, False, 1, b"", protocol)
            length = read_length(packet, 1, len(packet))
            assert 1 + length_size(length) + length == len(packet)
