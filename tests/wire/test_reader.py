"""The reader and the framers: protocol version, limits and buffering."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mesh.wire.decode import CLIENT, SERVER, PacketLimits, Reader
from mesh.wire.encode import encode
from mesh.wire.frames import Framer, Splitter
from mesh.wire.packets import Connect, Ping, Publish, Subscribe, Subscription, Unsubscribe
from mesh.wire.partial import LARGE
from mesh.wire.reasons import (
    MALFORMED_PACKET,
    PACKET_TOO_LARGE,
    PROTOCOL_ERROR,
    QUOTA_EXCEEDED,
    TOPIC_FILTER_INVALID,
    TOPIC_NAME_INVALID,
    ProtocolError,
)
from tests.support.golden import properties


def reason_of(reader: Reader | Framer) -> int:
    return 0 if reader.error is None else reader.error.reason


def test_connect_sets_the_protocol() -> None:
    for protocol in (3, 4, 5):
        reader = Reader(PacketLimits(), SERVER)
        assert reader.protocol == 0
        reader.feed(encode(Connect(protocol, "c"), protocol))
        assert reader.protocol == protocol


def test_connect_with_an_invalid_rest_sets_the_protocol() -> None:
    reader = Reader(PacketLimits(), SERVER)
    assert reader.feed(bytes.fromhex("10 0d 0004 4d515454 05 03 003c 00 0000")) == []
    assert (reader.protocol, reason_of(reader)) == (5, MALFORMED_PACKET)


def test_reader_with_a_protocol_takes_connect_as_received() -> None:
    reader = Reader(PacketLimits(), SERVER, 5)
    assert reader.feed(encode(Publish("a"), 5)) == [Publish("a")]
    reader.feed(encode(Connect(5, "c"), 5))
    assert reason_of(reader) == PROTOCOL_ERROR


def test_client_reader_without_a_protocol_raises_value_error() -> None:
    with pytest.raises(ValueError, match="protocol"):
        Reader(PacketLimits(), CLIENT)


def test_first_byte_that_is_not_connect_is_refused() -> None:
    reader = Reader(PacketLimits(), SERVER)
    reader.feed(b"G")
    assert (reason_of(reader), reader.pending) == (PROTOCOL_ERROR, 0)


@pytest.mark.parametrize("size", [127, 128, 16_383, 16_384, 100_000])
def test_max_packet_size_is_exact(size: int) -> None:
    packet = encode(Publish("a", bytes(size)), 4)
    exact = Reader(PacketLimits(max_packet_size=len(packet)), SERVER, 4)
    assert exact.feed(packet) == [Publish("a", bytes(size))]
    short = Reader(PacketLimits(max_packet_size=len(packet) - 1), SERVER, 4)
    header = 5 if size > 16_000 else 3
    short.feed(packet[:header])
    assert (reason_of(short), short.pending) == (PACKET_TOO_LARGE, 0)
    framer = Framer(len(packet) - 1)
    framer.feed(packet[:header])
    assert reason_of(framer) == PACKET_TOO_LARGE
    assert Framer(len(packet)).feed(packet) == [packet]


def test_connect_has_its_own_size_limit() -> None:
    connect = encode(Connect(4, "c", username="u", password=bytes(60_000)), 4)
    reader = Reader(PacketLimits(max_connect_size=len(connect) - 1), SERVER)
    assert reader.feed(connect[:4]) == []
    assert reason_of(reader) == PACKET_TOO_LARGE
    reader = Reader(PacketLimits(max_connect_size=len(connect)), SERVER)
    publish = Publish("a", bytes(70_000))
    assert len(reader.feed(connect + encode(publish, 4))) == 2
    assert reader.feed(encode(publish, 4)) == [publish]


def test_only_the_packet_in_progress_is_buffered() -> None:
    reader = Reader(PacketLimits(max_packet_size=1000), SERVER, 4)
    framer = Framer(1000)
    packet = encode(Publish("a", bytes(900)), 4)
    stream = packet * 20
    count = 0
    for start in range(0, len(stream), 7):
        piece = stream[start : start + 7]
        count += len(reader.feed(piece))
        framer.feed(piece)
        assert reader.pending < len(packet)
    assert count == 20
    assert reader.feed(packet[:500]) == []
    assert reader.pending == 500


def test_packet_that_arrives_byte_by_byte_is_not_copied_each_time() -> None:
    """256 KiB in single bytes: a copy for each byte would move 32 GiB."""
    packet = encode(Publish("a", bytes(1 << 18)), 4)
    reader = Reader(PacketLimits(), SERVER, 4)
    for byte in packet[:-1]:
        assert not reader.feed(bytes((byte,)))
    assert len(reader.feed(packet[-1:])) == 1


def test_empty_input_returns_no_packets() -> None:
    assert Reader(PacketLimits(), SERVER).feed(b"") == []
    assert Framer(100).feed(b"") == []


def test_lists_beyond_their_limits_are_refused() -> None:
    limits = PacketLimits(max_user_properties=2, max_subscriptions=2)
    user = properties(user=[("k", "v")] * 2)
    more = properties(user=[("k", "v")] * 3)
    filters = [Subscription("a"), Subscription("b")]
    assert len(Reader(limits, SERVER, 5).feed(encode(Publish("a", properties=user), 5))) == 1
    assert len(Reader(limits, SERVER, 5).feed(encode(Subscribe(1, filters), 5))) == 1
    for packet in (
        Publish("a", properties=more),
        Subscribe(1, [*filters, Subscription("c")]),
        Unsubscribe(1, ["a", "b", "c"]),
    ):
        reader = Reader(limits, SERVER, 5)
        assert reader.feed(encode(packet, 5)) == []
        assert reason_of(reader) == QUOTA_EXCEEDED
    reader = Reader(limits, CLIENT, 5)
    reader.feed(encode(Publish("a", properties=properties(subscription_ids=[1, 2, 3])), 5))
    assert reason_of(reader) == QUOTA_EXCEEDED


def test_topics_beyond_max_topic_levels_are_refused() -> None:
    limits = PacketLimits(max_topic_levels=3)
    for topic, good in (("a/b/c", True), ("a/b/c/d", False), ("abcdefgh", True), ("///", False)):
        reader = Reader(limits, SERVER, 4)
        assert bool(reader.feed(encode(Publish(topic), 4))) == good
        assert good or reason_of(reader) == TOPIC_NAME_INVALID
        reader = Reader(limits, SERVER, 4)
        assert bool(reader.feed(encode(Subscribe(1, [Subscription(topic)]), 4))) == good
        assert good or reason_of(reader) == TOPIC_FILTER_INVALID


def test_invalid_max_packet_size_raises_value_error() -> None:
    with pytest.raises(ValueError, match="max_packet_size"):
        PacketLimits(max_packet_size=1)
    assert PacketLimits(max_packet_size=1000).max_connect_size == 1000


def test_framer_returns_valid_packets_before_an_invalid_one() -> None:
    framer = Framer(100)
    assert framer.feed(b"\xc0\x00\xc0\x00\x30\xff\xff\xff\xff\x01") == [b"\xc0\x00"] * 2
    assert reason_of(framer) == MALFORMED_PACKET
    assert framer.feed(b"\xc0\x00") == []


@pytest.mark.parametrize("size", range(1, 13))
def test_splitter_takes_one_packet_at_a_time_and_keeps_the_rest(size: int) -> None:
    first, second, rest = b"\x10\x08" + bytes(8), b"\xf0\x80\x01" + bytes(128), b"\x30\x7f?"
    data = first + second + rest
    splitter, taken = Splitter(), []
    for pos in range(0, len(data), size):
        splitter.feed(data[pos : pos + size])
        if len(taken) < 2 and (packet := splitter.take(200)):
            taken.append(packet)
    while len(taken) < 2:
        taken.append(splitter.take(200))
    assert taken == [first, second]
    assert (splitter.size(), splitter.rest(), splitter.size()) == (3, rest, 0)


@pytest.mark.parametrize(
    ("data", "reason"), [(b"\x10\x09", PACKET_TOO_LARGE), (b"\x10\xff\xff\xff\xff", MALFORMED_PACKET)]
)
def test_splitter_refuses_an_invalid_length_before_the_packet_arrives(data: bytes, reason: int) -> None:
    splitter = Splitter()
    splitter.feed(data[:1])
    assert splitter.take(10) == b""
    splitter.feed(data[1:])
    with pytest.raises(ProtocolError) as found:
        splitter.take(10)
    assert found.value.reason == reason


def test_repr_of_packets_shows_their_fields() -> None:
    assert repr(Ping(12)) == "Ping(type=12)"
    assert repr(properties(user=[("k", "v")], maximum_qos=0)) == "Properties(maximum_qos=0, user=[('k', 'v')])"
    assert Ping(12) != Ping(13)
    assert Publish("a") != Ping(12)


@pytest.mark.parametrize("make", [lambda: Framer(1 << 20), lambda: Reader(PacketLimits(), SERVER, 4)])
def test_progress_and_size_of_the_packet_in_progress(make: Callable[[], Framer | Reader]) -> None:
    """``progress`` counts since its last call, from the first byte of each packet; ``kept`` counts large parts only."""
    packet = encode(Publish("t", bytes(10_000)), 4)
    reader = make()
    assert (reader.progress(), reader.kept) == (-1, 0)
    reader.feed(packet[:1])
    reader.feed(packet[1:3])
    assert (reader.progress(), reader.progress(), reader.kept) == (3, 0, 0)
    reader.feed(packet[3 : LARGE - 1])
    assert (reader.progress(), reader.kept) == (LARGE - 4, 0)
    reader.feed(packet[LARGE - 1 : LARGE])
    assert (reader.progress(), reader.kept) == (1, LARGE)
    assert len(reader.feed(packet[LARGE:] + packet + packet[:5000])) == 2
    assert (reader.progress(), reader.kept) == (5000, 5000)
    assert len(reader.feed(packet[5000:])) == 1
    assert (reader.progress(), reader.kept) == (-1, 0)
