"""The trail: what a process leaves says which message it handled when it ended."""

from __future__ import annotations

import mmap

import pytest

from mesh.transport.trail import BLOCK, HEAD, READ, Footprint, Trail, read_trail
from mesh.wire.decode import SERVER, Reader
from mesh.wire.encode import encode
from mesh.wire.limits import PacketLimits
from mesh.wire.packets import MQTT5, MQTT311, PUBACK, Ack, Publish, Subscribe, Subscription, Unsubscribe
from mesh.wire.properties import Properties

CORE = b"core-1, client core-1"


class Process:
    """A process that reads from one peer, and ends in the handling of one packet."""

    def __init__(self, protocol: int = MQTT5) -> None:
        self.memory = mmap.mmap(-1, BLOCK)
        self.trail = Trail(self.memory, "token-1")
        self.protocol = protocol
        self.reader = Reader(PacketLimits(), SERVER, protocol)

    def read(self, data: bytes, dies_at: int | None = None) -> Footprint | None:
        """Read bytes. Returns what is left if the process ends in the handling of packet ``dies_at`` of them."""
        trail = self.trail
        trail.begin(CORE, self.protocol, self.reader, data)
        for index, _ in enumerate(self.reader.feed(data)):
            trail.handle()
            if index == dies_at:
                return self.left()
            trail.next()
        trail.end()
        return self.left()

    def left(self) -> Footprint | None:
        return read_trail(bytes(self.memory))


def message(topic: str = "t", payload: bytes = b"x", packet_id: int = 1, dup: bool = False, expiry: int = 0) -> Publish:
    properties = None
    if expiry:
        properties = Properties()
        properties.message_expiry = expiry
    return Publish(topic, payload, 1, False, dup, packet_id, properties)


def found(left: Footprint | None) -> tuple[str, str, str]:
    assert left is not None
    return left.token, left.source, left.packet


@pytest.mark.parametrize("protocol", [MQTT5, MQTT311])
def test_the_message_that_was_handled_is_found(protocol: int) -> None:
    process = Process(protocol)
    packets = [message(f"topic/{number}", b"x" * number) for number in range(10)]
    left = process.read(b"".join(encode(packet, protocol) for packet in packets), 7)
    assert found(left) == ("token-1", CORE.decode(), "PUBLISH on 'topic/7'")
    process.trail.refused = frozenset((left.fingerprint,)) if left else frozenset()
    assert [process.trail.refuses(packet, protocol) for packet in packets] == [number == 7 for number in range(10)]


def test_a_repeat_is_the_same_message() -> None:
    process = Process()
    left = process.read(encode(message(expiry=1000), MQTT5), 0)
    assert left is not None
    assert left.fingerprint
    process.trail.refused = frozenset((left.fingerprint,))
    assert process.trail.refuses(message(packet_id=77, dup=True, expiry=900), MQTT5)
    assert not process.trail.refuses(message(payload=b"y"), MQTT5)
    assert not process.trail.refuses(message(topic="u"), MQTT5)
    assert not process.trail.refuses(Ack(PUBACK, 1), MQTT5)


def test_between_packets_and_reads_no_message_is_named() -> None:
    process = Process()
    assert process.left() is None
    assert process.read(encode(message(), MQTT5)) is None
    process.trail.begin(CORE, MQTT5, process.reader, encode(message(), MQTT5))
    assert found(process.left())[2] == ""  # it was being read
    process.trail.handle()
    process.trail.next()
    process.trail.rest()
    left = process.left()
    assert found(left)[2] == ""
    assert left is not None
    assert left.fingerprint == ""


def test_another_packet_has_no_fingerprint() -> None:
    left = Process().read(encode(Ack(PUBACK, 1), MQTT5), 0)
    assert left is not None
    assert (left.packet, left.fingerprint) == ("", "")


@pytest.mark.parametrize("size", [10, 2000, 3 * HEAD, 2 * READ])
@pytest.mark.parametrize("second", [False, True])
def test_a_packet_that_came_in_several_reads_is_found(size: int, second: bool) -> None:
    one, two = message("large", b"a" * size), message("next", b"b")
    data = encode(one, MQTT5) + encode(two, MQTT5)
    process = Process()
    left = None
    cut = len(encode(one, MQTT5)) - 3
    for begin in range(0, cut, READ):
        assert process.read(data[begin : min(begin + READ, cut)]) is None
    left = process.read(data[cut:], int(second))
    assert found(left)[2] == f"PUBLISH on {'next' if second else 'large'!r}"
    assert left is not None
    process.trail.refused = frozenset((left.fingerprint,))
    assert process.trail.refuses(two if second else one, MQTT5)


def test_what_is_not_kept_has_no_fingerprint() -> None:
    process = Process()
    data = encode(message("first", b"x" * READ), MQTT5) + encode(message("second"), MQTT5)
    left = process.read(data, 1)
    assert left is not None
    assert left.fingerprint == ""
    assert read_trail(b"") is None
    assert read_trail(bytes(BLOCK)) is None


def test_a_long_source_is_cut() -> None:
    process = Process()
    process.trail.begin(b"s" * 1000, MQTT5, process.reader, b"")
    assert found(process.left())[1] == "s" * 200


@pytest.mark.parametrize("protocol", [MQTT5, MQTT311])
def test_a_subscribe_is_found_too(protocol: int) -> None:
    wide, narrow = Subscription("+/" * 50 + "#", 1), Subscription("t", 1)
    process = Process(protocol)
    left = process.read(encode(Subscribe(7, [narrow, wide]), protocol), 0)
    assert found(left)[2] == "SUBSCRIBE"
    assert left is not None
    process.trail.refused = frozenset((left.fingerprint,))
    assert process.trail.refuses(Subscribe(8, [narrow, wide]), protocol)
    assert not process.trail.refuses(Subscribe(8, [wide]), protocol)
    assert not process.trail.refuses(Unsubscribe(8, ["t"]), protocol)
