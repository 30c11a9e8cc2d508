"""The exchange against a model: after any events a replay contains what MQTT allows, and nothing is lost."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesh.frontdoor.exchange import Exchange, HeldFrame
from mesh.wire.decode import SERVER, PacketLimits, Reader
from mesh.wire.encode import encode, encode_ack
from mesh.wire.frames import ack_packet_id, publish_packet_id, with_dup
from mesh.wire.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Publish

CONNECT = bytes.fromhex("100d00044d5154540402003c000141")


def publish(qos: int, packet_id: int, payload: bytes = b"") -> bytes:
    return encode(Publish("t", payload, qos, packet_id=packet_id), 4)


class ExchangeMachine(RuleBasedStateMachine):
    """A vehicle publishes, an edge answers and confirms, and the link is lost at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.exchange = Exchange(1)
        self.on_link: list[HeldFrame] = []
        self.next_id = 1
        self.counter = 0
        self.unanswered: dict[int, bytes] = {}
        self.fresh: list[bytes] = []  # QoS 0 payloads that were not sent on any link
        self.linked = True
        self.with_vehicle: dict[int, int] = {}  # identifier -> QoS
        self.received: set[int] = set()

    @rule(qos=st.integers(0, 2))
    def vehicle_publishes(self, qos: int) -> None:
        self.counter += 1
        payload = b"%d" % self.counter
        packet_id = self.next_id if qos else 0
        if qos:
            self.next_id += 1
            self.unanswered[packet_id] = payload
        entry = self.exchange.up([publish(qos, packet_id, payload)])
        if self.linked:
            self.exchange.frame(entry)
            self.on_link.append(entry)
        elif not qos:
            self.fresh.append(payload)

    @precondition(lambda self: self.linked and self.unanswered)
    @rule(data=st.data())
    def edge_answers(self, data: st.DataObject) -> None:
        packet_id = data.draw(st.sampled_from(sorted(self.unanswered)))
        kind = data.draw(st.sampled_from([PUBACK, PUBREC]))
        raw = encode_ack(kind, packet_id, 0, 4)
        assert self.exchange.down(raw, [raw]) == raw
        del self.unanswered[packet_id]

    @precondition(lambda self: self.linked and self.on_link)
    @rule(data=st.data())
    def edge_confirms(self, data: st.DataObject) -> None:
        for _ in range(data.draw(st.integers(1, len(self.on_link)))):
            self.exchange.confirmed(self.on_link.pop(0))

    @precondition(lambda self: self.linked)
    @rule()
    def link_is_lost(self) -> None:
        self.linked = False
        self.on_link = []

    @precondition(lambda self: not self.linked)
    @rule()
    def link_is_back(self) -> None:
        self.linked = True
        self.exchange.reopen()
        assert set(self.exchange.unacked()) == set(self.with_vehicle)
        entries = self.exchange.replay()
        replayed = [raw for entry in entries for raw in entry.packets or () if raw]
        self.on_link = entries
        for entry in entries:
            assert self.exchange.frame(entry)
        publishes = [raw for raw in replayed if raw[0] >> 4 == 3]
        assert [publish_packet_id(raw) for raw in publishes if raw[0] & 0x06] == sorted(self.unanswered)
        reader = Reader(PacketLimits(), SERVER)
        reader.feed(CONNECT)
        packets = reader.feed(b"".join(publishes))
        assert reader.error is None
        assert [p.payload for p in packets if isinstance(p, Publish) and not p.qos] == self.fresh
        self.fresh = []

    @precondition(lambda self: self.linked)
    @rule(packet_id=st.integers(1, 5), qos=st.integers(1, 2))
    def edge_publishes(self, packet_id: int, qos: int) -> None:
        if packet_id in self.with_vehicle:
            return
        raw = publish(qos, packet_id)
        assert self.exchange.down(raw, [raw]) == raw
        self.with_vehicle[packet_id] = qos

    @precondition(lambda self: self.with_vehicle)
    @rule(data=st.data())
    def vehicle_acknowledges(self, data: st.DataObject) -> None:
        packet_id = data.draw(st.sampled_from(sorted(self.with_vehicle)))
        if self.with_vehicle[packet_id] == 1:
            self._send(encode_ack(PUBACK, packet_id, 0, 4))
            del self.with_vehicle[packet_id]
        elif packet_id not in self.received:
            self._send(encode_ack(PUBREC, packet_id, 0, 4))
            self.received.add(packet_id)
        elif self.linked:
            raw = encode_ack(PUBREL, packet_id, 0, 4)
            assert self.exchange.down(raw, [raw]) == raw
            again = self.exchange.down(raw + raw, [raw, raw])
            assert again == b""
            self._send(encode_ack(PUBCOMP, packet_id, 0, 4))
            del self.with_vehicle[packet_id]
            self.received.discard(packet_id)

    def _send(self, raw: bytes) -> None:
        entry = self.exchange.up([raw])
        if self.linked:
            self.exchange.frame(entry)
            self.on_link.append(entry)

    @invariant()
    def what_is_held_adds_up(self) -> None:
        entries = self.exchange.entries()
        packets = [raw for entry in entries for raw in entry.packets or () if raw and raw[0] >> 4 == 3]
        kept = {publish_packet_id(raw) for raw in packets if raw[0] & 0x06}
        withheld = [publish(1, id, payload) for id, payload in self.unanswered.items() if id not in kept]
        assert self.exchange.held == sum(entry.size for entry in entries) + sum(map(len, withheld))
        if self.linked:
            assert list(self.exchange.entries()) == self.on_link


TestExchange = ExchangeMachine.TestCase
TestExchange.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_rejected_publish_ends_its_exchange() -> None:
    exchange = Exchange(1)
    raw = publish(2, 7)
    exchange.down(raw, [raw])
    exchange.up([b"\x50\x04\x00\x07\x97\x00"])
    assert exchange.unacked() == []


def test_subscribe_is_replayed_until_suback() -> None:
    exchange = Exchange(1)
    subscribe = b"\x82\x06\x00\x01\x00\x01t\x00"
    entry = exchange.up([subscribe])
    assert exchange.frame(entry) == subscribe
    assert exchange.replay() == [entry]
    suback = b"\x90\x03\x00\x01\x00"
    exchange.down(suback, [suback])
    assert exchange.replay() == []
    assert exchange.held == 0


def test_packets_that_were_confirmed_without_an_answer_are_replayed() -> None:
    """The edge withholds an answer while a queue is full, and forgets it with the link."""
    exchange = Exchange(1)
    entry = exchange.up([publish(0, 0), publish(1, 1), publish(1, 2), encode_ack(PUBACK, 9, 0, 4), publish(1, 3)])
    exchange.frame(entry)
    answer = encode_ack(PUBACK, 1, 0, 4)
    exchange.down(answer, [answer])
    freed = entry.size - 2 * len(publish(1, 2))  # of those without an answer the door keeps the bytes
    assert exchange.confirmed(entry) == freed
    assert exchange.held == 2 * len(publish(1, 2))
    assert entry.packets == [b"", b"", publish(1, 2), b"", publish(1, 3)]
    for _ in range(2):
        (again,) = exchange.replay()
        assert again.packets == [with_dup(publish(1, 2)), with_dup(publish(1, 3))]
        assert exchange.held == again.size == 2 * len(publish(1, 2))
        exchange.frame(again)
    for packet_id in (2, 3):
        answer = encode_ack(PUBACK, packet_id, 0, 4)
        exchange.down(answer, [answer])
    exchange.confirmed(again)
    assert exchange.replay() == []
    assert exchange.held == 0


def test_an_answer_that_comes_after_the_confirmation_frees_the_bytes() -> None:
    exchange = Exchange(1)
    packets = [publish(1, 1, b"x" * 1000), publish(2, 2, b"y" * 1000)]
    entry = exchange.up(list(packets))
    assert exchange.confirmed(entry) == 0
    assert exchange.held == sum(map(len, packets))
    answer = encode_ack(PUBACK, 1, 0, 4)
    exchange.down(answer, [answer])
    assert exchange.take_freed() == len(packets[0])
    assert exchange.held == len(packets[1])
    again = exchange.up([publish(2, 2)])  # the vehicle uses the identifier again: the first packet is replaced
    assert exchange.take_freed() == len(packets[1])
    assert exchange.held == again.size


def test_late_answer_to_an_older_packet_answers_no_newer_one() -> None:
    exchange = Exchange(1)
    entry = exchange.up([encode_ack(PUBREL, 1, 0, 4)])
    late = encode_ack(PUBREC, 1, 0, 4)
    exchange.down(late, [late])
    assert exchange.replay() == [entry]
    assert ack_packet_id(late) == 1
