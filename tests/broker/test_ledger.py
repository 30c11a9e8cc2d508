"""A core's repeats over the tier link: the edge ignores a message that it has taken, and takes one that it refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.broker.ledger import INSTANCE, Ledger
from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.settings import DEAD_LETTER, HOLD, Settings
from mesh.wire.packets import PUBACK, Ack, Subscribe, Subscription
from mesh.wire.properties import Properties
from mesh.wire.reasons import NOT_AUTHORIZED, QUOTA_EXCEEDED, SUCCESS
from tests.support.bench import Bench, Client

TOPIC = "vehicles/car/cmd"


def bench(**settings: int) -> Bench:
    own = Settings()
    own.keep_all = True
    for name, value in settings.items():
        setattr(own, name, value)
    return Bench(own)


def core(mesh: Bench, instance: str = "one") -> Client:
    properties = Properties()
    properties.user = [(INSTANCE, instance)]
    return mesh.client("core", "core", TIER, clean=False, expiry=600, properties=properties)


def car(mesh: Bench) -> Client:
    client = mesh.client("car", "car", VEHICLE, clean=False, expiry=600)
    client.send(Subscribe(1, [Subscription("vehicles/car/#", 1)]))
    return client


def crash(mesh: Bench) -> Bench:
    mesh.broker.end_turn()
    mesh.turn(commit=True)
    return mesh.restart()


def reasons(client: Client) -> list[tuple[int, int]]:
    return [(ack.packet_id, ack.reason) for ack in client.take(Ack) if ack.type == PUBACK]


def test_a_repeat_after_a_crash_is_acknowledged_and_not_delivered_again() -> None:
    mesh = bench()
    vehicle, sender = car(mesh), core(mesh)
    for number in (1, 2):
        sender.publish(TOPIC, b"%d" % number, packet_id=number)
    assert vehicle.messages() == [b"1", b"2"]
    mesh = crash(mesh)
    vehicle, sender = car(mesh), core(mesh)
    for number in (1, 2, 3):
        sender.publish(TOPIC, b"%d" % number, packet_id=number, dup=True)
    assert reasons(sender) == [(1, SUCCESS), (2, SUCCESS), (3, SUCCESS)]
    assert vehicle.messages() == [b"3"]


def test_a_new_process_of_the_core_starts_to_count_again() -> None:
    mesh = bench()
    vehicle = car(mesh)
    core(mesh).publish(TOPIC, b"old", packet_id=7)
    mesh = crash(mesh)
    vehicle = car(mesh)
    core(mesh, "two").publish(TOPIC, b"new", packet_id=7, dup=True)
    assert vehicle.messages() == [b"new"]


def test_a_repeat_of_a_refused_message_is_refused_again() -> None:
    mesh = bench(max_queue_messages=1)
    car(mesh).lose()
    other = mesh.client("other", "other", VEHICLE, clean=False, expiry=600)
    other.send(Subscribe(1, [Subscription("vehicles/other/#", 1)]))
    sender = core(mesh)
    sender.publish(TOPIC, b"1", packet_id=1)
    sender.publish(TOPIC, b"2", packet_id=2)
    sender.publish("vehicles/other/cmd", b"3", packet_id=3)
    assert reasons(sender) == [(1, SUCCESS), (2, QUOTA_EXCEEDED), (3, SUCCESS)]
    sender.lose()
    sender = core(mesh)
    sender.publish(TOPIC, b"2", packet_id=2, dup=True)
    sender.publish("vehicles/other/cmd", b"3", packet_id=3, dup=True)
    assert reasons(sender)[0] == (2, QUOTA_EXCEEDED)


def test_the_ledger_ends_with_its_session() -> None:
    mesh = bench()
    car(mesh)
    core(mesh).publish(TOPIC, b"1", packet_id=1)
    mesh = crash(mesh)
    properties = Properties()
    properties.user = [(INSTANCE, "one")]
    vehicle = car(mesh)
    vehicle.messages()
    sender = mesh.client("core", "core", TIER, clean=True, properties=properties)
    sender.publish(TOPIC, b"again", packet_id=1, dup=True)
    assert vehicle.messages() == [b"again"]


@given(st.integers(1, 65_535), st.integers(1, 40_000), st.integers(1, 8192))
def test_the_ledger_has_all_messages_in_flight_and_no_later_one(start: int, count: int, back: int) -> None:
    ledger = Ledger("one")
    for step in range(count):
        ledger.take((start - 1 + step) % 65_535 + 1)
    last = (start - 1 + count - 1) % 65_535 + 1
    behind = (last - 1 - (min(back, count) - 1)) % 65_535 + 1
    ahead = (last - 1 + back) % 65_535 + 1
    assert ledger.has(behind)
    assert not ledger.has(ahead)


def test_a_message_that_waits_for_room_in_the_dead_letters_survives_a_lost_link() -> None:
    """Its core repeats it, and the ledger takes the repeat for one that the edge has."""
    mesh = bench(
        max_queue_messages=1, inbox_when_full=DEAD_LETTER, dead_letter_when_full=HOLD, dead_letter_share=1000
    )
    vehicle, sender = car(mesh), core(mesh)
    vehicle.lose()
    for number in (1, 2, 3):  # the queue, the share, above the share
        sender.publish(TOPIC, b"%d" % number + bytes(300), packet_id=number)
    assert reasons(sender) == [(1, SUCCESS), (2, SUCCESS)]
    sender.lose()
    mesh.turn()
    sender = core(mesh)
    sender.publish(TOPIC, b"3" + bytes(300), packet_id=3, dup=True)
    assert reasons(sender) == [(3, SUCCESS)]
    letters = mesh.broker.letters
    assert [letters.load(one).payload[:1] for one in letters.queue.after(0, 10)] == [b"2", b"3"]


def test_a_message_that_is_not_allowed_is_not_taken_for_one_that_was_taken() -> None:
    mesh = bench()
    vehicle, sender = car(mesh), core(mesh)
    for number, topic in ((1, TOPIC), (2, "$mesh/forged"), (3, TOPIC)):
        sender.publish(topic, b"%d" % number, packet_id=number)
    assert reasons(sender) == [(1, SUCCESS), (2, NOT_AUTHORIZED), (3, SUCCESS)]
    mesh = crash(mesh)
    vehicle, sender = car(mesh), core(mesh)
    for number, topic in ((2, "$mesh/forged"), (3, TOPIC), (4, TOPIC)):
        sender.publish(topic, b"%d" % number, packet_id=number, dup=True)
    assert reasons(sender) == [(2, NOT_AUTHORIZED), (3, SUCCESS), (4, SUCCESS)]
    assert vehicle.messages() == [b"4"]


def test_a_message_that_is_refused_again_does_not_make_the_edge_forget_those_after_it() -> None:
    mesh = bench(max_queue_messages=1)
    car(mesh).lose()
    other = mesh.client("other", "other", VEHICLE, clean=False, expiry=600)
    other.send(Subscribe(1, [Subscription("vehicles/other/#", 1)]))
    sender = core(mesh)
    for number, topic in ((1, TOPIC), (2, TOPIC), (3, "vehicles/other/cmd")):
        sender.publish(topic, b"%d" % number, packet_id=number)
    for _ in range(2):
        sender.lose()
        sender = core(mesh)
        sender.publish(TOPIC, b"2", packet_id=2, dup=True)
        sender.publish("vehicles/other/cmd", b"3", packet_id=3, dup=True)
        assert reasons(sender) == [(2, QUOTA_EXCEEDED), (3, SUCCESS)]
    vehicle = car(mesh)  # there is room again
    assert vehicle.messages() == [b"1"]
    for _ in range(2):
        sender.lose()
        sender = core(mesh)
        sender.publish(TOPIC, b"2", packet_id=2, dup=True)
        sender.publish("vehicles/other/cmd", b"3", packet_id=3, dup=True)
        assert reasons(sender) == [(2, SUCCESS), (3, SUCCESS)]
    assert vehicle.messages() == [b"2"]
    assert other.messages() == [b"3"]


@given(st.integers(1, 65_535), st.lists(st.lists(st.booleans(), max_size=30), max_size=8))
def test_the_ledger_never_has_a_message_that_was_refused(start: int, rounds: list[list[bool]]) -> None:
    """Each round the core repeats what was refused in the ones before, and sends more; the edge takes some of it."""
    ledger = Ledger("one")
    refused: list[int] = []
    following = start
    for taken in rounds:
        sent, again = refused, len(refused)
        while len(sent) < again + len(taken):
            sent.append(following)
            following = following % 65_535 + 1
        refused = []
        for place, packet_id in enumerate(sent):
            assert not ledger.has(packet_id)
            if place < len(taken) and taken[place]:
                ledger.take(packet_id)
            else:
                ledger.refuse(packet_id)
                refused.append(packet_id)
        assert not any(ledger.has(packet_id) for packet_id in refused)
