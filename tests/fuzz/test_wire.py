"""Random bytes: a reader only sets ``error``, and reads them the same in any pieces."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.wire.decode import CLIENT, SERVER, PacketLimits, Reader
from mesh.wire.encode import encode, encode_properties
from mesh.wire.fields import Cursor, write_length
from mesh.wire.frames import Framer, ack_packet_id, ack_reason, publish_packet_id
from mesh.wire.packets import AUTH, CONNECT, Packet
from mesh.wire.properties import Properties
from mesh.wire.property_codec import WILL, read_properties
from mesh.wire.reasons import NAMES, ProtocolError
from tests.support.golden import BROKEN, GOLDEN

LIMITS = PacketLimits(max_packet_size=4096)
READERS = pytest.mark.parametrize(
    ("role", "protocol"),
    [(SERVER, 0), (SERVER, 3), (SERVER, 4), (SERVER, 5), (CLIENT, 3), (CLIENT, 4), (CLIENT, 5)],
)
SEEDS = [bytes.fromhex(golden.hex) for golden in GOLDEN] + [bytes.fromhex(broken.hex) for broken in BROKEN]


def check(role: int, protocol: int, data: bytes) -> None:
    """Feed ``data`` whole and byte by byte: the packets are the same, and survive a round trip."""
    whole = Reader(LIMITS, role, protocol)
    packets = whole.feed(data)
    single = Reader(LIMITS, role, protocol)
    one_by_one: list[Packet] = []
    for byte in data:
        one_by_one += single.feed(bytes((byte,)))
        assert single.pending <= LIMITS.max_packet_size
    assert one_by_one == packets
    assert (whole.error is None) == (single.error is None)
    if whole.error is not None and single.error is not None:
        assert whole.error.reason == single.error.reason
        assert whole.error.reason in NAMES
        assert str(whole.error)
    assert whole.pending == single.pending
    again = Reader(LIMITS, role, protocol)
    for packet in packets:
        assert again.feed(encode(packet, whole.protocol)) == [packet]


@READERS
@given(data=st.binary(max_size=200))
def test_random_bytes_are_read_the_same_in_pieces(role: int, protocol: int, data: bytes) -> None:
    check(role, protocol, data)


@READERS
@given(kind=st.integers(0, 255), body=st.binary(max_size=100))
def test_random_bodies_are_read_the_same_in_pieces(role: int, protocol: int, kind: int, body: bytes) -> None:
    check(role, protocol, bytes((kind, len(body))) + body)


@READERS
def test_mutated_golden_packets_are_read_the_same_in_pieces(role: int, protocol: int) -> None:
    dice = random.Random(role * 10 + protocol)
    for _ in range(2_000):
        data = bytearray(b"".join(dice.choice(SEEDS) for _ in range(dice.randrange(1, 3))))
        for _ in range(dice.randrange(0, 4)):
            at = dice.randrange(len(data))
            what = dice.randrange(3)
            if what == 0:
                data[at] = dice.randrange(256)
            elif what == 1:
                data[at : at + 1] = dice.randbytes(dice.randrange(3))
            else:
                data[at] ^= 1 << dice.randrange(8)
            if not data:
                data += b"\x10"
        check(role, protocol, bytes(data))


@given(data=st.binary(max_size=200), limit=st.integers(2, 200))
def test_the_framer_cuts_random_bytes_the_same_in_pieces(data: bytes, limit: int) -> None:
    whole = Framer(limit)
    packets = whole.feed(data)
    single = Framer(limit)
    one_by_one: list[bytes] = []
    for byte in data:
        one_by_one += single.feed(bytes((byte,)))
    assert one_by_one == packets
    assert data.startswith(b"".join(packets))
    assert (whole.error is None) == (single.error is None)
    for raw in packets:
        for identifier in (publish_packet_id(raw), ack_packet_id(raw)):
            assert 0 <= identifier <= 0xFFFF
        assert 0 <= ack_reason(raw) <= 0xFF


@settings(max_examples=300)
@given(st.binary(max_size=100), st.sampled_from([WILL, *range(CONNECT, AUTH + 1)]))
def test_random_properties_survive_a_round_trip(data: bytes, place: int) -> None:
    try:
        properties = properties_in(data, place)
    except ProtocolError:
        return
    if properties is not None:
        assert properties_in(encode_properties(properties), place) == properties


def properties_in(data: bytes, place: int) -> Properties | None:
    whole = write_length(len(data)) + data
    return read_properties(Cursor(whole, 0, len(whole)), place, len(data), len(data))
