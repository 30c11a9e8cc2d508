"""Every golden packet is read and written, every broken packet is refused."""

from __future__ import annotations

import pytest

from mesh.wire.decode import SERVER, PacketLimits, Reader
from mesh.wire.encode import encode
from mesh.wire.packets import Connect, Packet
from tests.support.golden import BROKEN, GOLDEN, READ_ONLY, Broken, Golden

LATER = [broken for broken in BROKEN if broken.protocol and broken.role == SERVER]


def reader_for(golden: Golden) -> Reader:
    """A reader in a state in which the packet is allowed."""
    return Reader(PacketLimits(), golden.role, 0 if isinstance(golden.packet, Connect) else golden.protocol)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_golden_packet_is_encoded(golden: Golden) -> None:
    assert encode(golden.packet, golden.protocol).hex() == golden.hex.replace(" ", "")


@pytest.mark.parametrize("golden", GOLDEN + READ_ONLY, ids=lambda golden: golden.name)
def test_golden_packet_is_read_whole(golden: Golden) -> None:
    reader = reader_for(golden)
    assert reader.feed(bytes.fromhex(golden.hex)) == [golden.packet]
    assert reader.error is None
    assert reader.pending == 0
    assert reader.protocol == golden.protocol


@pytest.mark.parametrize("golden", GOLDEN + READ_ONLY, ids=lambda golden: golden.name)
def test_golden_packet_is_read_byte_by_byte(golden: Golden) -> None:
    reader = reader_for(golden)
    packets: list[Packet] = []
    for byte in bytes.fromhex(golden.hex):
        assert packets == []
        packets += reader.feed(bytes((byte,)))
    assert packets == [golden.packet]
    assert reader.error is None


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_truncated_body_is_not_read_as_the_packet(golden: Golden) -> None:
    """The length field matches the truncated body."""
    data = bytes.fromhex(golden.hex)
    start = 2 if data[1] < 0x80 else 3
    for size in range(min(len(data) - start, 127)):
        reader = reader_for(golden)
        packets = reader.feed(data[:1] + bytes((size,)) + data[start : start + size])
        assert packets == [] or packets != [golden.packet]
        assert bool(packets) == (reader.error is None)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_broken_packet_is_refused(broken: Broken) -> None:
    reader = Reader(PacketLimits(), broken.role, broken.protocol)
    assert reader.feed(bytes.fromhex(broken.hex)) == []
    assert reader.error is not None
    assert (reader.error.reason, str(reader.error) != "") == (broken.reason, True)
    assert reader.feed(bytes.fromhex("c000")) == []
    assert reader.pending == 0


@pytest.mark.parametrize("broken", LATER, ids=lambda broken: broken.name)
def test_valid_packets_before_a_broken_one_are_returned(broken: Broken) -> None:
    good = [golden for golden in GOLDEN if golden.role == SERVER and golden.protocol == broken.protocol]
    good = [golden for golden in good if not isinstance(golden.packet, Connect)]
    reader = Reader(PacketLimits(), SERVER, broken.protocol)
    stream = b"".join(bytes.fromhex(golden.hex) for golden in good) + bytes.fromhex(broken.hex) + b"\xc0\x00"
    assert reader.feed(stream) == [golden.packet for golden in good]
    assert reader.error is not None
    assert reader.error.reason == broken.reason


def test_names_of_golden_and_broken_packets_are_unique() -> None:
    names = [golden.name for golden in GOLDEN + READ_ONLY] + [broken.name for broken in BROKEN]
    assert len(names) == len(set(names))
