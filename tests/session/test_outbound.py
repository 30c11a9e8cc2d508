"""The sending side of a session: order, window, identifiers and repeats, against a model, through crashes."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesh.session.message import Message, publish_packet
from mesh.session.outbound import RELEASED, SENT, Delivery, Depth, Outbound, packet_id_of
from mesh.wire.packets import MQTT5, PUBACK, PUBCOMP, PUBREC


def delivery(name: int, qos: int = 1) -> Delivery:
    message = Message("t", b"%d" % name, qos, False, b"", 0.0)
    return Delivery(message, qos, False, (), 0.0, 0.0, message.size())


class SendingSide(RuleBasedStateMachine):
    """The model: the deliveries queued, those that the receiver has and has not answered, and those it has finished."""

    def __init__(self) -> None:
        super().__init__()
        self.outbound = Outbound(Depth(), 4)
        self.names = 0
        self.unfinished: list[Delivery] = []  # QoS 1 and 2, in order
        self.with_receiver: list[int] = []  # identifiers that the receiver has and has not answered
        self.released: set[int] = set()
        self.received: list[int] = []  # numbers in the order of their first arrival
        self.answered = -1  # the highest number that the receiver has answered: all lower ones have arrived

    @rule(qos=st.sampled_from([0, 1, 2]))
    def queue(self, qos: int) -> None:
        self.names += 1
        item = delivery(self.names, qos)
        if qos:
            self.outbound.number(item)
            self.unfinished.append(item)
        self.outbound.push(item)

    @rule()
    def send(self) -> None:
        item = self.outbound.take(0)
        if item is None or item.qos == 0:
            return
        packet_id = packet_id_of(item.number)
        assert packet_id not in self.with_receiver
        assert item.dup == (item.number in self.received)
        if item.number not in self.received:
            assert not self.received or item.number > max(self.received)
            self.received.append(item.number)
        self.with_receiver.append(packet_id)

    @precondition(lambda self: self.with_receiver)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        packet_id = data.draw(st.sampled_from(self.with_receiver))
        item = self.outbound.in_flight[packet_id]
        self.answered = max(self.answered, item.number)
        if item.qos == 2 and item.state == SENT:
            assert self.outbound.received(packet_id) is item
            item.state = RELEASED
            self.released.add(packet_id)
            return
        type = PUBACK if item.qos == 1 else PUBCOMP
        assert self.outbound.finish(packet_id, type) is item
        assert self.outbound.finish(packet_id, type) is None
        assert not self.outbound.misfit(packet_id)
        self.with_receiver.remove(packet_id)
        self.released.discard(packet_id)
        self.unfinished.remove(item)

    @precondition(lambda self: self.with_receiver)
    @rule(data=st.data())
    def misfit(self, data: st.DataObject) -> None:
        """An acknowledgement of another exchange changes nothing."""
        packet_id = data.draw(st.sampled_from(self.with_receiver))
        item = self.outbound.in_flight[packet_id]
        wrong = [PUBREC, PUBCOMP] if item.qos == 1 else [PUBACK] if item.state == RELEASED else [PUBACK, PUBCOMP]
        for type in wrong:
            assert self.outbound.finish(packet_id, type) is None
            assert self.outbound.misfit(packet_id)
        if item.qos == 1:
            assert self.outbound.received(packet_id) is None

    @rule()
    def make_room(self) -> None:
        """Drop the oldest waiting delivery, as a full inbox does."""
        item = self.outbound.drop_head()
        if item is not None and item.qos:
            self.unfinished.remove(item)

    @rule()
    def reconnect(self) -> None:
        released = self.outbound.reconnect()
        assert {packet_id_of(item.number) for item in released} == self.released
        self.with_receiver = [packet_id for packet_id in self.with_receiver if packet_id in self.released]

    @rule(lost=st.integers(0, 3))
    def resume(self, lost: int) -> None:
        """The link breaks; the last ``lost`` publishes do not reach the receiver."""
        flying = self.outbound.in_flight
        may_be_lost = [packet_id for packet_id in self.with_receiver if flying[packet_id].number > self.answered]
        lost_ids = may_be_lost[len(may_be_lost) - min(lost, len(may_be_lost)) :]
        for packet_id in lost_ids:
            number = self.outbound.in_flight[packet_id].number
            if not self.outbound.in_flight[packet_id].dup:
                self.received.remove(number)
            self.with_receiver.remove(packet_id)
        self.outbound.resume(list(self.with_receiver))

    @rule()
    def crash(self) -> None:
        """Restore only what the journal keeps: the numbers, and which deliveries are released."""
        fresh = Outbound(Depth(), 4)
        restored: list[Delivery] = []
        for item in self.unfinished:
            copy = delivery(0, item.qos)
            copy.number, copy.size = item.number, item.size
            copy.state = RELEASED if item.state == RELEASED else 0
            copy.dup = item.number in self.received
            fresh.restore(copy)
            restored.append(copy)
        fresh.next_number = self.outbound.next_number
        self.outbound, self.unfinished = fresh, restored
        self.reconnect()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        held = [item for item in self.outbound.waiting if item.qos] + list(self.outbound.in_flight.values())
        assert sorted(item.number for item in held) == [item.number for item in self.unfinished]

    @invariant()
    def bytes_and_messages_are_counted(self) -> None:
        held = [*self.outbound.waiting, *self.outbound.in_flight.values()]
        assert self.outbound.bytes == sum(item.size for item in held)
        assert self.outbound.depth.messages == len(self.outbound) == len(held)

    @invariant()
    def the_window_holds(self) -> None:
        assert len(self.outbound.in_flight) <= max(4, len(self.released))


SendingSide.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSendingSide = SendingSide.TestCase


def test_abandoned_session_is_not_counted_in_the_depth() -> None:
    depth = Depth()
    first, second = Outbound(depth), Outbound(depth)
    for outbound in (first, second):
        for name in range(3):
            item = delivery(name)
            outbound.number(item)
            outbound.push(item)
    assert first.take(0) is not None
    assert depth.messages == 6
    assert [first.drop_any() is not None for _ in range(4)] == [True, True, True, False]
    assert depth.messages == 3
    assert (len(first), first.bytes) == (0, 0)


def test_delivery_is_not_sent_before_its_position_is_durable() -> None:
    outbound = Outbound(Depth())
    item = delivery(1)
    item.position = 5
    outbound.number(item)
    outbound.push(item)
    assert outbound.take(4) is None
    assert outbound.take(5) is item


def test_delivery_waits_while_its_identifier_is_in_use() -> None:
    outbound = Outbound(Depth())
    outbound.next_number = 65_535
    first = delivery(1)
    outbound.number(first)
    outbound.push(first)
    assert outbound.take(0) is first
    outbound.next_number = 2 * 65_535
    second = delivery(2)
    outbound.number(second)
    outbound.push(second)
    assert packet_id_of(first.number) == packet_id_of(second.number)
    assert outbound.take(0) is None
    outbound.finish(packet_id_of(first.number), PUBACK)
    assert outbound.take(0) is second


def expiring(outbound: Outbound, *moments: float) -> list[Delivery]:
    """Queue deliveries that expire at these times; 0: never."""
    made = [delivery(number) for number in range(len(moments))]
    for item, moment in zip(made, moments, strict=True):
        item.expires = moment
        outbound.number(item)
        outbound.push(item)
    return made


def test_a_long_queue_is_searched_for_expired_deliveries_in_portions() -> None:
    outbound = Outbound(Depth(), 4)
    made = expiring(outbound, *[10.0, 0.0, 20.0] * 1000)
    found: list[Delivery] = []
    calls = 0
    while outbound.soonest == 10.0:
        calls += 1
        portion = outbound.take_expired(10.0)
        assert len(portion) < 400
        found += portion
    assert found == made[::3]
    assert calls == 3
    assert outbound.soonest == 20.0
    assert list(outbound.waiting) == [item for item in made if item.expires != 10.0]


def test_a_delivery_that_is_queued_again_is_found_by_a_search_that_has_begun() -> None:
    outbound = Outbound(Depth(), 4)
    first = expiring(outbound, 30.0)[0]
    assert outbound.take(0) is first
    expiring(outbound, *[10.0] * 2000)
    assert len(outbound.take_expired(10.0)) == 1024
    first.expires = 10.0
    outbound.resume([])
    assert first in outbound.take_expired(10.0)


def test_expired_deliveries_are_taken_out_as_time_passes() -> None:
    outbound = Outbound(Depth(), 4)
    never, late, soon, later = expiring(outbound, 0.0, 20.0, 10.0, 30.0)
    size = outbound.bytes
    assert outbound.take_expired(9.9) == []
    assert outbound.take_expired(10.0) == [soon]
    assert outbound.take_expired(30.0) == [late, later]
    assert outbound.take_expired(99.0) == []
    assert list(outbound.waiting) == [never]
    assert (outbound.bytes, outbound.depth.messages) == (size // 4, 1)


def test_requeued_delivery_expires_after_resume_but_not_after_reconnect() -> None:
    """A new connection repeats it in any case; after a lost link the receiver may not have it."""
    outbound = Outbound(Depth(), 1)
    first, second = expiring(outbound, 10.0, 10.0)
    assert outbound.take(0) is first
    outbound.reconnect()
    assert outbound.take_expired(10.0) == [second]
    lost, passing = expiring(outbound, 20.0, 12.0)
    assert outbound.take(0) is first
    assert outbound.finish(packet_id_of(first.number), PUBACK) is first
    assert outbound.take(0) is lost
    assert outbound.take_expired(15.0) == [passing]
    outbound.resuming = True
    assert outbound.resume([]) == []
    assert outbound.take_expired(20.0) == [lost]


def test_unknown_identifier_of_the_receiver_stays_in_use() -> None:
    """Its message went to another receiver while the link was lost, or before a crash."""
    outbound = Outbound(Depth(), 4)
    outbound.resuming = True
    assert outbound.resume([1, 2]) == []
    items = [delivery(number) for number in range(3)]
    for item in items:
        outbound.number(item)
        outbound.push(item)
    assert outbound.take(0) is None
    assert outbound.finish(1, PUBACK) is not None
    assert outbound.take(0) is items[0]
    assert outbound.take(0) is None
    held = outbound.received(2)
    assert held is not None
    held.state = RELEASED
    assert outbound.finish(2, PUBCOMP) is held
    assert outbound.take(0) is items[1]
    outbound.reconnect()
    assert (len(outbound), outbound.depth.messages) == (3, 3)


def test_no_delivery_expires_during_a_replay() -> None:
    outbound = Outbound(Depth(), 4)
    expiring(outbound, 10.0)
    outbound.resuming = True
    assert outbound.take_expired(99.0) == []


def test_packet_identifier_is_1_to_65535() -> None:
    assert packet_id_of(0) == 1
    assert packet_id_of(65_534) == 65_535
    assert packet_id_of(65_535) == 1


@pytest.mark.parametrize("interval", [1, 100, 0xFFFFFFFF])
@pytest.mark.parametrize("now", [1_700_000_000.1, 1_795_694_536.333, 1_700_000_000.999999])
def test_message_expiry_interval_does_not_grow(interval: int, now: float) -> None:
    """A time is less exact than an interval, so the sum must be rounded."""
    message = Message("a", b"", 0, False, b"", now, now + interval)
    packet = publish_packet(message, MQTT5, 0, False, False, 0, now, (), None)
    assert packet[6:11] == b"\x02" + interval.to_bytes(4, "big")
