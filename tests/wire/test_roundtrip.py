"""Encoded packets are read back, in pieces of any size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.wire.decode import CLIENT, SERVER, PacketLimits, Reader
from mesh.wire.encode import encode, encode_ack, encode_properties, encode_publish
from mesh.wire.frames import Framer, ack_packet_id, ack_reason, connect_client_id, publish_packet_id, with_dup
from mesh.wire.packets import PUBACK, PUBCOMP, Ack, Packet, Publish
from mesh.wire.properties import Properties
from tests.wire import strategies

PROTOCOLS = pytest.mark.parametrize("protocol", [3, 4, 5])


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` cut at these positions (modulo its length)."""
    at = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


def read_in_pieces(reader: Reader, data: bytes, cuts: list[int]) -> list[Packet]:
    packets: list[Packet] = []
    for piece in pieces(data, cuts):
        packets += reader.feed(piece)
    assert reader.error is None
    assert reader.pending == 0
    return packets


@PROTOCOLS
@given(data=st.data())
def test_client_packets_are_read_back(protocol: int, data: st.DataObject) -> None:
    packets: list[Packet] = [data.draw(strategies.connects(protocol))]
    packets += data.draw(st.lists(strategies.from_client(protocol), max_size=5))
    stream = b"".join(encode(packet, protocol) for packet in packets)
    cuts = data.draw(st.lists(st.integers(0, 10_000), max_size=8))
    assert read_in_pieces(Reader(PacketLimits(), SERVER), stream, cuts) == packets


@PROTOCOLS
@given(data=st.data())
def test_server_packets_are_read_back(protocol: int, data: st.DataObject) -> None:
    packets: list[Packet] = data.draw(st.lists(strategies.from_server(protocol), min_size=1, max_size=5))
    stream = b"".join(encode(packet, protocol) for packet in packets)
    cuts = data.draw(st.lists(st.integers(0, 10_000), max_size=8))
    assert read_in_pieces(Reader(PacketLimits(), CLIENT, protocol), stream, cuts) == packets


@PROTOCOLS
@given(data=st.data())
def test_framer_and_reader_split_at_the_same_positions(protocol: int, data: st.DataObject) -> None:
    packets = data.draw(st.lists(strategies.from_client(protocol), min_size=1, max_size=5))
    raws = [encode(packet, protocol) for packet in packets]
    framer = Framer(1 << 20)
    out: list[bytes] = []
    for piece in pieces(b"".join(raws), data.draw(st.lists(st.integers(0, 10_000), max_size=8))):
        out += framer.feed(piece)
    assert framer.error is None
    assert out == raws


@PROTOCOLS
@given(data=st.data())
def test_fields_of_a_raw_publish(protocol: int, data: st.DataObject) -> None:
    publish = data.draw(strategies.publishes(protocol, True))
    raw = encode(publish, protocol)
    assert publish_packet_id(raw) == publish.packet_id
    if publish.qos:
        repeated = Reader(PacketLimits(), SERVER, protocol).feed(with_dup(raw))
        publish.dup = True
        assert repeated == [publish]


@PROTOCOLS
@given(data=st.data())
def test_client_id_of_a_raw_connect(protocol: int, data: st.DataObject) -> None:
    connect = data.draw(strategies.connects(protocol))
    assert connect_client_id(encode(connect, protocol)) == connect.client_id


@PROTOCOLS
@given(data=st.data())
def test_fields_of_a_raw_acknowledgement(protocol: int, data: st.DataObject) -> None:
    ack = data.draw(strategies.acks(protocol))
    raw = encode(ack, protocol)
    assert (ack_packet_id(raw), ack_reason(raw)) == (ack.packet_id, ack.reason)


@PROTOCOLS
@given(data=st.data())
def test_encode_publish_writes_the_same_as_encode(protocol: int, data: st.DataObject) -> None:
    publish: Publish = data.draw(strategies.publishes(protocol, False))
    properties = b"" if publish.properties is None else encode_properties(publish.properties)
    topic = publish.topic.encode()
    fast = encode_publish(
        topic, publish.payload, publish.qos, publish.retain, publish.dup, publish.packet_id, properties, protocol
    )
    assert fast == encode(publish, protocol)


@PROTOCOLS
@pytest.mark.parametrize("kind", range(PUBACK, PUBCOMP + 1))
@pytest.mark.parametrize("reason", [0, 0x92])
def test_encode_ack_writes_the_same_as_encode(protocol: int, kind: int, reason: int) -> None:
    for packet_id in (1, 0xFF, 0x100, 0xABCD, 0xFFFF):
        assert encode_ack(kind, packet_id, reason, protocol) == encode(Ack(kind, packet_id, reason), protocol)


def test_empty_properties_encode_to_no_bytes() -> None:
    assert encode_properties(Properties()) == b""
