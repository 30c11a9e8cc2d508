"""Messages for very many receivers reach them in portions: in order, once each, also across crashes."""

from __future__ import annotations

from random import Random

import pytest

from mesh.broker.grant import Grant
from mesh.broker.ledger import INSTANCE
from mesh.broker.principal import TIER, VEHICLE
from mesh.broker.settings import HOLD, Settings
from mesh.broker.work import STEPS
from mesh.wire.packets import PUBACK, PUBREC, Ack, Publish, Subscribe, Subscription
from mesh.wire.properties import Properties
from tests.fakes.store import CountingStore
from tests.support.bench import Bench, Client, subscribe
from tests.support.items import owned_items

CLIENTS = 500
MOST = STEPS // 2  # calls of the journal in one turn: far fewer than the message takes


def bench(fan_out: int = 20) -> Bench:
    settings = Settings()
    settings.system_interval, settings.keep_all, settings.fan_out = 0.0, True, fan_out
    return Bench(settings, CountingStore())


def fleet(mesh: Bench, count: int = CLIENTS) -> list[Client]:
    """Vehicles that read ``fleet``, and a topic of their own."""
    clients = [Client(mesh, f"c{number}", f"V{number}", VEHICLE) for number in range(count)]
    mesh.auto = False
    for client in clients:
        client.principal.permissions.grant = Grant((), (), fleet=("fleet/#",))
        client.connect(clean=False, expiry=1000)
        subscribe(client, "fleet/+", f"vehicles/{client.principal.name}/cmd")
    mesh.auto = True
    mesh.turn()
    for client in clients:
        client.packets.clear()
    return clients


def core(mesh: Bench, name: str = "core-1") -> Client:
    client = Client(mesh, name, name, TIER)
    properties = Properties()
    properties.user = [(INSTANCE, "process")]
    client.connect(clean=False, expiry=1000, properties=properties)
    return client


def turn(mesh: Bench) -> bool:
    """One turn with its commit. Returns whether there is more to do."""
    more = mesh.broker.end_turn()
    mesh.broker.durable(mesh.store.commit())
    mesh._flush()
    mesh.broker.durable(mesh.store.commit())
    return more


def received(clients: list[Client]) -> list[list[bytes]]:
    return [client.messages() for client in clients]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_for_a_whole_fleet_takes_several_turns_and_arrives_once(qos: int) -> None:
    mesh = bench()
    clients, source = fleet(mesh), core(mesh)
    store = mesh.store
    assert isinstance(store, CountingStore)
    mesh.auto = False
    store.calls = 0
    mesh.broker.receive(source.connection, Publish("fleet/a", b"x", qos, packet_id=1 if qos else 0))
    assert store.calls < 10  # nothing is done for each receiver yet
    before, answers, most = mesh.broker.counters.delivered, 0, 0
    while turn(mesh):
        done = mesh.broker.counters.delivered
        assert done - before < CLIENTS // 2
        assert store.calls < MOST
        most, before, store.calls = max(most, done - before), done, 0
        answers += len(source.take(Ack))
        assert not answers  # not before all have it
    mesh.auto = True
    mesh.turn()
    assert received(clients) == [[b"x"]] * CLIENTS
    assert most > 0
    assert [answer.reason for answer in source.take(Ack)] == [0] * qos  # PUBACK, or PUBREC and PUBCOMP
    assert not mesh.broker.dispatcher.fan_outs.busy
    assert not mesh.broker.persistence.bodies


def test_no_message_overtakes_one_that_is_on_its_way_to_many() -> None:
    mesh = bench()
    clients, source, other = fleet(mesh), core(mesh), core(mesh, "core-2")
    mesh.auto = False
    mesh.broker.receive(source.connection, Publish("fleet/a", b"1", 1, packet_id=1))
    turn(mesh)
    first, last = mesh.broker.sessions.get((VEHICLE, "V0", "c0")), clients[-1]
    assert first is not None
    assert first.outbound.next_number == 1  # it has the message already
    mesh.broker.receive(other.connection, Publish("vehicles/V0/cmd", b"2", 1, packet_id=1))
    assert first.outbound.next_number == 2  # at once
    mesh.broker.receive(other.connection, Publish(f"vehicles/{last.principal.name}/cmd", b"2", 1, packet_id=2))
    mesh.broker.receive(other.connection, Publish("fleet/b", b"3", 1, packet_id=3))
    mesh.broker.receive(source.connection, Publish(f"vehicles/{last.principal.name}/cmd", b"4", 1, packet_id=2))
    mesh.broker.receive(source.connection, Publish("vehicles/V0/cmd", b"4", 1, packet_id=3))
    assert len(mesh.broker.dispatcher.fan_outs) == 5
    mesh.auto = True
    mesh.turn()
    assert [client.messages() for client in (clients[0], clients[5], last)] == [
        [b"1", b"2", b"3", b"4"], [b"1", b"3"], [b"1", b"2", b"3", b"4"],
    ]  # fmt: skip
    for one, count in ((source, 3), (other, 3)):
        assert [answer.packet_id for answer in one.take(Ack)] == list(range(1, count + 1))


def test_many_messages_for_many_take_bounded_memory_and_keep_their_order() -> None:
    mesh = bench()
    clients, source = fleet(mesh, 100), core(mesh)
    mesh.auto = False
    for number in range(30):
        # Each new subscription makes new routes.
        mesh.broker.receive(clients[0].connection, Subscribe(1, [Subscription(f"vehicles/V0/{number}", 1)]))
        mesh.broker.receive(source.connection, Publish(f"fleet/{number % 5}", b"%d" % number, 1, packet_id=number + 1))
    fan_outs = mesh.broker.dispatcher.fan_outs
    assert len(fan_outs._routes) <= 8
    assert fan_outs._blind > 0
    mesh.auto = True
    mesh.turn()
    assert received(clients) == [[b"%d" % number for number in range(30)]] * 100


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("turns", [0, 1, 2, 4])
def test_a_crash_in_between_neither_loses_nor_repeats(qos: int, turns: int) -> None:
    mesh = bench()
    fleet(mesh)
    source = core(mesh)
    mesh.auto = False
    mesh.broker.receive(source.connection, Publish("fleet/a", b"1", qos, packet_id=1))
    mesh.broker.receive(source.connection, Publish("vehicles/V499/cmd", b"2", qos, packet_id=2))
    for _ in range(turns):
        mesh.broker.end_turn()
        mesh.store.commit()
    again = mesh.restart()
    again.auto = True
    source = core(again)
    source.send(Publish("fleet/a", b"1", qos, False, True, 1))  # its process is the same, and was not answered
    source.send(Publish("vehicles/V499/cmd", b"2", qos, False, True, 2))
    answers = [answer.type for answer in source.take(Ack) if answer.type in (PUBACK, PUBREC)]
    assert answers == [PUBACK if qos == 1 else PUBREC] * 2
    assert [delivered(again, number) for number in range(CLIENTS)] == [[b"1"]] * (CLIENTS - 1) + [[b"1", b"2"]]
    assert again.broker.persistence.lost == 0


def delivered(mesh: Bench, number: int) -> list[bytes]:
    client = Client(mesh, f"c{number}", f"V{number}", VEHICLE)
    client.connect(clean=False, expiry=1000)
    return client.messages()


def test_a_core_that_repeats_a_message_while_it_is_on_its_way_does_not_double_it() -> None:
    mesh = bench()
    clients, source = fleet(mesh), core(mesh)
    mesh.auto = False
    mesh.broker.receive(source.connection, Publish("fleet/a", b"1", 1, packet_id=1))
    turn(mesh)
    source.lose()
    source = core(mesh)
    mesh.broker.receive(source.connection, Publish("fleet/a", b"1", 1, False, True, 1))
    mesh.auto = True
    mesh.turn()
    assert received(clients) == [[b"1"]] * CLIENTS
    assert [answer.packet_id for answer in source.take(Ack)] == [1]


def test_receivers_that_come_and_go_meanwhile() -> None:
    mesh = bench()
    clients = fleet(mesh, 300)
    source = mesh.client("app")
    mesh.auto = False
    mesh.broker.receive(source.connection, Publish("fleet/a", b"1", 1, packet_id=1))
    gone = clients.pop()
    gone.connect(clean=True, expiry=0)  # ends its session
    mesh.auto = True
    mesh.turn()
    assert received(clients) == [[b"1"]] * 299
    assert gone.messages() == []
    assert mesh.broker.persistence.lost == 0


def test_shared_groups_and_no_local_are_as_ever() -> None:
    mesh = bench()
    clients = [mesh.client(f"c{number}", expiry=100) for number in range(60)]
    mesh.auto = False
    for client in clients:
        subscribe(client, "t", no_local=True)
        subscribe(client, f"$share/g{client.client_id[1:]}/t", "$share/all/t")
    mesh.auto = True
    mesh.turn()
    clients[3].send(Publish("t", b"x", 1, packet_id=1))
    found = [len(messages) for messages in received(clients)]
    assert sum(found) == 59 + 60 + 1
    assert found[3] in (1, 2)
    assert clients[3].take(Ack)[0].reason == 0


def test_a_receiver_without_room_gets_a_dead_letter() -> None:
    mesh = bench()
    mesh.settings.max_queue_messages = 2
    clients, source = fleet(mesh, 100), core(mesh)
    for client in clients[50:]:
        client.lose()
    for number in range(1, 4):
        source.send(Publish("fleet/a", b"%d" % number, 1, packet_id=number))
    assert received(clients[:50]) == [[b"1", b"2", b"3"]] * 50
    assert [answer.reason for answer in source.take(Ack)] == [0, 0, 0]
    assert len(mesh.broker.letters) == 50


def without_room(mesh: Bench) -> Client:
    """A core, and vehicles that are away and whose queues are full."""
    mesh.settings.max_queue_messages = 1
    clients, source = fleet(mesh), core(mesh)
    for client in clients:
        client.lose()
    source.send(Publish("fleet/a", b"first", 1, packet_id=1))
    source.take(Ack)
    return source


def test_many_receivers_without_room_get_their_dead_letters_in_slices() -> None:
    mesh = bench()
    source = without_room(mesh)
    store = mesh.store
    assert isinstance(store, CountingStore)
    mesh.auto = False
    mesh.broker.receive(source.connection, Publish("fleet/a", b"second", 1, packet_id=2))
    store.calls = 0
    more = True
    while more:
        more = turn(mesh)
        assert store.calls < MOST // 4  # a letter takes more time than a delivery
        store.calls = 0
    assert len(mesh.broker.letters) == CLIENTS


@pytest.mark.parametrize("turns", [1, 2])
def test_a_crash_in_between_loses_no_dead_letter(turns: int) -> None:
    mesh = bench()
    source = without_room(mesh)
    mesh.auto = False
    mesh.broker.receive(source.connection, Publish("fleet/a", b"second", 1, packet_id=2))
    for _ in range(turns):
        mesh.broker.end_turn()
        mesh.store.commit()
    assert mesh.broker.dispatcher.fan_outs.busy
    again = mesh.restart()
    again.auto = True
    source = core(again)
    source.send(Publish("fleet/a", b"second", 1, False, True, 2))  # the ledger has it
    again.turn()
    assert [answer.reason for answer in source.take(Ack)] == [0]
    shares = [letter.share for letter in again.broker.letters.queue.after(0, 10 * CLIENTS)]
    assert sorted(shares) == sorted(f"vehicle/V{number}" for number in range(CLIENTS))


def test_a_fault_in_one_message_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = bench()
    clients, source = fleet(mesh, 100), core(mesh)
    mesh.auto = False

    read = mesh.store.read
    faults = [ValueError("a fault")]

    def fails(item: int) -> bytes:
        if faults:
            raise faults.pop()
        return read(item)

    for number in range(1, 4):
        mesh.broker.receive(source.connection, Publish("fleet/a", b"%d" % number, 1, packet_id=number))
    with monkeypatch.context() as patch:
        patch.setattr(mesh.store, "read", fails)
        with pytest.raises(ExceptionGroup):
            mesh.broker.end_turn()
    mesh.auto = True
    mesh.turn()
    assert [answer.reason for answer in source.take(Ack)] == [0x80, 0, 0]
    assert received(clients) == [[b"2", b"3"]] * 100
    again = mesh.restart()
    again.turn()
    assert again.broker.persistence.depth.messages == 100  # the first one is in the journal


def test_with_hold_a_message_reaches_all_at_once() -> None:
    """The bounds of ``hold`` are checked before any receiver gets it, for the queues as they are then."""
    mesh = bench()
    mesh.settings.dead_letter_when_full = HOLD
    clients, source = fleet(mesh, 100), core(mesh)
    mesh.auto = False
    mesh.broker.receive(source.connection, Publish("fleet/a", b"1", 1, packet_id=1))
    assert not mesh.broker.dispatcher.fan_outs.busy
    mesh.auto = True
    mesh.turn()
    assert received(clients) == [[b"1"]] * 100


def test_messages_of_qos_0_are_dropped_when_too_many_wait() -> None:
    mesh = bench(fan_out=2)
    clients, source = fleet(mesh, 3), core(mesh)
    mesh.auto = False
    payload = bytes((1 << 20) - 100)
    for _ in range(100):
        mesh.broker.receive(source.connection, Publish("fleet/a", payload, 0))
    assert len(mesh.broker.dispatcher.fan_outs) == 64
    assert mesh.broker.counters.dropped_full == 36
    mesh.auto = True
    mesh.turn()
    assert [len(messages) for messages in received(clients)] == [64] * 3
    assert mesh.broker.dispatcher.fan_outs._bytes == 0


@pytest.mark.parametrize("seed", range(12))
def test_each_receiver_gets_each_message_once_and_in_order_whatever_happens(seed: int) -> None:
    """A core sends messages for all and for one; the edge crashes now and then; the core repeats what was not answered.
    """
    dice = Random(seed)
    mesh = bench(dice.choice((1, 5, 60)))
    for client in fleet(mesh, 90):
        client.lose()
    source, other = core(mesh), mesh.client("other")
    unanswered: dict[int, Publish] = {}
    expected: dict[int, list[bytes]] = {number: [] for number in range(90)}
    mesh.auto = False
    for number in range(1, 150):
        vehicle = dice.randrange(90)
        topic = dice.choice(("fleet/a", "fleet/b", f"vehicles/V{vehicle}/cmd", f"vehicles/V{vehicle}/cmd"))
        for one in range(90) if topic.startswith("fleet") else [vehicle]:
            expected[one].append(b"%d" % number)
        unanswered[number] = Publish(topic, b"%d" % number, 1, packet_id=number)
        mesh.broker.receive(source.connection, unanswered[number])
        if dice.random() < 0.1:  # other routes
            mesh.broker.receive(other.connection, Subscribe(1, [Subscription(f"x/{number}", 1)]))
        if dice.random() < 0.5:
            turn(mesh)
            for answer in source.take(Ack):
                assert answer.reason == 0
                del unanswered[answer.packet_id]
        if dice.random() < 0.06:
            mesh = mesh.restart()
            mesh.auto = False
            source, other = core(mesh), mesh.client("other")
            turn(mesh)
            for again in unanswered.values():
                again.dup = True
                mesh.broker.receive(source.connection, again)
    mesh.auto = True
    mesh.turn()
    assert owned_items(mesh.broker) == set(mesh.store.items)
    assert mesh.broker.persistence.lost == 0
    assert {number: delivered(mesh, number) for number in range(90)} == expected
