"""Retained messages of back ends whose senders have lost the right: the copies at the edges are deleted, and no other
message is (CVE-2018-12546)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mesh.broker.grant import Grant
from mesh.broker.principal import BACKEND, VEHICLE, Permissions, everything
from mesh.broker.session import Key
from mesh.broker.settings import Settings
from mesh.broker.versions import VERSION
from mesh.core.kinds import WITHDRAWN
from mesh.wire.packets import Publish, Will
from mesh.wire.properties import Properties
from tests.core.harness import Edge, Mesh, acks, say, vehicle_of
from tests.fakes.clock import FakeClock
from tests.support.bench import Client, subscribe


class Rights:
    """What the back ends may publish to, by the names of their users; all, if it is not said."""

    def __init__(self) -> None:
        self.publish: dict[str, tuple[str, ...]] = {}

    def of(self, key: Key, _roles: tuple[str, ...], _provider: str) -> Permissions:
        kind, name, _ = key
        if kind == VEHICLE:
            return Permissions(f"vehicles/{name}/")
        return everything() if kind != BACKEND else Permissions("", Grant(self.publish.get(name, ("#",)), ("#",)))


class World:
    """One core, or several with the same edges."""

    def __init__(self, edges: int = 2, cores: int = 1) -> None:
        self.rights = Rights()
        self.clock = FakeClock()
        names = [f"core-{number}" for number in range(1, cores + 1)]
        self.cores = [Mesh(edges, clock=self.clock, core=name, permissions_of=self.rights.of) for name in names]
        for mesh in self.cores:
            mesh.edges = self.mesh.edges
            mesh.connect()

    @property
    def mesh(self) -> Mesh:
        return self.cores[0]

    @property
    def edges(self) -> dict[str, Edge]:
        return self.mesh.edges

    def app(self, name: str = "app", core: int = 0) -> Client:
        mesh = self.cores[core]
        client = Client(mesh.core, name, name, BACKEND)
        client.principal.permissions.grant = Grant(("#",), ("#",))
        client.connect()
        return client

    def say(self, client: Client, topic: str, payload: bytes = b"x", qos: int = 1, core: int = 0) -> None:
        say(client, self.cores[core], topic, payload, qos)

    def allow(self, name: str, *filters: str, run: bool = True) -> None:
        """The user may publish to these from now on."""
        self.rights.publish[name] = filters
        for mesh in self.cores:
            settings = Settings()
            settings.take(mesh.core.settings)
            mesh.core.broker.take(settings)
        if run:
            self.run()

    def run(self) -> None:
        for mesh in self.cores:
            mesh.run()

    def restart_core(self, core: int = 0) -> None:
        self.cores[core] = self.cores[core].restart_core()

    def tick(self) -> None:
        for mesh in self.cores:
            mesh.withdrawals.tick()
        self.run()


def kept(bench: Any) -> dict[str, bytes]:
    """All retained messages of a node."""
    found = {}
    for topic, _ in bench.broker.retained.items("#"):
        message = bench.broker.retained.get(topic)
        assert message is not None
        found[topic] = message.payload
    return found


def all_kept(world: World) -> list[dict[str, bytes]]:
    return [kept(world.mesh.core), *(kept(edge) for edge in world.edges.values())]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_vehicles_that_subscribe_later_do_not_get_what_the_sender_may_not_publish_now(qos: int) -> None:
    world = World()
    app = world.app()
    early = world.mesh.vehicle(1, "#")
    for topic in ("vehicles/V1/a", "vehicles/V2/a", "fleet/a", "between/a", "vehicles/V1/b", "fleet/b"):
        world.say(app, topic, topic.encode(), qos)
    early.take(Publish)
    world.allow("app", "vehicles/+/b", "fleet/b")
    left = {"vehicles/V1/b": b"vehicles/V1/b", "fleet/b": b"fleet/b"}
    assert all_kept(world) == [left, left, {"fleet/b": b"fleet/b"}]
    late = world.edges["edge-1"].client("late", "V1", VEHICLE)
    subscribe(late, "vehicles/V1/#")
    assert [packet.topic for packet in late.take(Publish)] == ["vehicles/V1/b"]
    watcher = world.edges["edge-2"].client("w", "watch")
    subscribe(watcher, "#")
    assert [packet.topic for packet in watcher.take(Publish)] == ["fleet/b"]
    assert early.take(Publish) == [], "a withdrawal is no message"
    assert world.mesh.core.broker.status().revoked_retained == 4
    assert len(world.mesh.withdrawals) == 0
    assert not [item for item in world.mesh.core.store.items.values() if item.kind == WITHDRAWN]


def test_a_message_of_a_back_end_that_has_gone_is_withdrawn() -> None:
    world = World()
    app = world.app()
    world.say(app, "vehicles/V1/a")
    app.lose()
    world.allow("app")
    assert all_kept(world) == [{}, {}, {}]


def test_a_will_that_was_retained_is_withdrawn() -> None:
    world = World()
    app = world.app()
    connection = app.connection
    session = connection.session
    assert session is not None
    will = Will("fleet/will", b"gone", 1, True)
    session.will = world.mesh.core.broker.dispatcher.will_message(will)
    world.mesh.core.broker.lost(connection)
    world.run()
    assert all_kept(world) == [{"fleet/will": b"gone"}] * 3
    world.allow("app")
    assert all_kept(world) == [{}, {}, {}]


def test_a_core_that_was_down_when_the_right_was_lost_withdraws_when_it_is_back() -> None:
    world = World()
    app = world.app()
    for topic in ("vehicles/V1/a", "fleet/a"):
        world.say(app, topic)
    world.rights.publish["app"] = ()
    world.restart_core()
    world.mesh.connect()
    assert all_kept(world) == [{}, {}, {}]


@pytest.mark.parametrize("crash", ["none", "edge", "core", "both"])
def test_an_edge_that_was_away_deletes_its_copy_when_it_is_back(crash: str) -> None:
    world = World(1)
    app = world.app()
    for topic in ("vehicles/V1/before", "fleet/before"):
        world.say(app, topic)
    world.mesh.pipes["edge-1"].cut()
    for topic in ("vehicles/V1/during", "fleet/during"):
        world.say(app, topic)
    world.allow("app")
    if crash in ("edge", "both"):
        world.mesh.kill("edge-1")
    if crash in ("core", "both"):
        world.restart_core()
    assert set(kept(world.edges["edge-1"])) == {"vehicles/V1/before", "fleet/before"}
    world.mesh.connect()
    assert all_kept(world) == [{}, {}]
    world.mesh.kill("edge-1")
    assert kept(world.edges["edge-1"]) == {}


def test_a_crash_of_the_core_at_any_moment_leaves_no_copy() -> None:
    for steps in range(8):
        world = World()
        app = world.app()
        for number in range(40):
            world.say(app, f"vehicles/V{1 + number % 2}/{number}")
        world.mesh.core.turns = 1
        world.mesh.core.broker.work.left = 0
        world.allow("app", run=False)
        for _ in range(steps):
            world.mesh.core.turn()
        world.restart_core()
        world.mesh.connect()
        world.run()
        assert all_kept(world) == [{}, {}, {}], steps


def test_many_are_withdrawn_in_slices() -> None:
    world = World()
    app = world.app()
    for number in range(500):
        app.publish(f"vehicles/V{1 + number % 2}/{number}", retain=True)
    world.run()
    assert [len(found) for found in all_kept(world)] == [500, 250, 250]
    world.mesh.core.turns = 1
    world.allow("app", run=False)
    world.mesh.core.turn()
    assert 0 < len(kept(world.mesh.core)) < 500
    world.mesh.core.turns = 1 << 30
    world.run()
    assert all_kept(world) == [{}, {}, {}]


# What is not withdrawn


def test_commands_that_were_acknowledged_stay_whoever_sent_them() -> None:
    world = World()
    vehicle = world.mesh.vehicle(1, "#", clean=False, expiry=1000)
    vehicle.lose()
    app = world.app()
    app.publish("vehicles/V1/cmd", b"command", 1)
    world.say(app, "vehicles/V1/state", b"state")
    assert [reason for _, reason in acks(app)] == [0, 0]
    world.allow("app")
    back = world.edges["edge-1"].client("v", "V1", VEHICLE, clean=False, expiry=1000)
    world.run()
    assert back.messages() == [b"command", b"state"]
    assert all_kept(world) == [{}, {}, {}]


@pytest.mark.parametrize("away", [False, True])
def test_what_a_vehicle_has_published_meanwhile_stays_also_with_the_same_content(away: bool) -> None:
    world = World(1)
    world.say(world.app(), "vehicles/V1/a", b"same")
    if away:
        world.mesh.pipes["edge-1"].cut()
        world.allow("app")
    vehicle = world.mesh.vehicle(1)
    vehicle.publish("vehicles/V1/a", b"same", retain=True)
    if away:
        world.mesh.connect()
    else:
        world.run()
        world.allow("app")
    assert kept(world.edges["edge-1"]) == {"vehicles/V1/a": b"same"}


@pytest.mark.parametrize("topic", ["vehicles/V1/a", "fleet/a"])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("core", [0, 1])
def test_what_another_back_end_has_published_meanwhile_stays(topic: str, late: bool, core: int) -> None:
    world = World(1, 2)
    world.say(world.app(), topic, b"same")
    if late:
        world.clock.now -= 100
    world.say(world.app("other", core), topic, b"same", core=core)
    world.allow("app")
    assert kept(world.edges["edge-1"]) == {topic: b"same"}
    world.allow("other")
    assert kept(world.edges["edge-1"]) == {}, "whatever the clocks say"


@pytest.mark.parametrize("topic", ["vehicles/V1/a", "fleet/a"])
def test_a_right_that_was_given_back_keeps_what_is_published_with_it(topic: str) -> None:
    world = World(1)
    app = world.app()
    world.say(app, topic, b"same")
    world.mesh.pipes["edge-1"].cut()
    world.allow("app")
    world.allow("app", "#")
    assert all_kept(world) == [{}, {topic: b"same"}], "the edge is away"
    world.say(app, topic, b"same")
    world.mesh.connect()
    assert all_kept(world) == [{topic: b"same"}] * 2
    world.restart_core()
    world.mesh.connect()
    assert all_kept(world) == [{topic: b"same"}] * 2


def test_a_new_edge_gets_neither_the_message_nor_an_older_one_of_its_topic() -> None:
    world = World(1, 2)
    for core, topic, payload in ((1, "fleet/a", b"older"), (0, "fleet/a", b"bad"), (0, "fleet/b", b"bad")):
        world.say(world.app("app" if core == 0 else "other", core), topic, payload, core=core)
    world.allow("app")
    world.say(world.app("other", 1), "fleet/b", b"later", core=1)
    name = world.mesh.add_edge()
    world.cores[1].add_edge()
    world.cores[1].edges = world.mesh.edges
    for mesh in reversed(world.cores):
        mesh.connect(name)
    assert [kept(edge) for edge in world.edges.values()] == [{"fleet/b": b"later"}] * 2
    world.restart_core()
    world.mesh.connect()
    assert [kept(edge) for edge in world.edges.values()] == [{"fleet/b": b"later"}] * 2


def test_what_is_given_again_does_not_replace_a_later_one_of_a_clock_that_is_behind() -> None:
    world = World(1, 2)
    world.say(world.app(), "fleet/a", b"by a clock that is ahead")
    world.clock.now -= 100
    world.say(world.app("other", 1), "fleet/a", b"the last", core=1)
    edge = world.edges["edge-1"]
    world.cores[0].links["edge-1"]._backfill._forget_given()
    world.cores[0].pipes["edge-1"].cut()
    world.cores[0].connect("edge-1")
    assert kept(edge) == {"fleet/a": b"the last"}


# Edges that cannot be told now


def test_a_full_spool_of_one_edge_delays_no_other() -> None:
    world = World(2)
    app = world.app()
    world.say(app, "fleet/a")
    world.mesh.pipes["edge-1"].cut()
    spool = world.mesh.links["edge-1"].spool
    spool.max_messages = 1
    app.publish("vehicles/V1/x", b"command")
    world.allow("app")
    assert all_kept(world) == [{}, {"fleet/a": b"x"}, {}]
    assert len(world.mesh.withdrawals) == 1
    world.tick()
    assert len(world.mesh.withdrawals) == 1
    world.mesh.connect("edge-1")
    world.tick()
    assert all_kept(world) == [{}, {}, {}]
    assert len(world.mesh.withdrawals) == 0


@pytest.mark.parametrize("crash", [False, True])
def test_a_vehicle_whose_owner_is_unknown_is_told_when_it_is_known(crash: bool) -> None:
    async def main() -> None:
        world = World(2)
        app = world.app()
        for topic in ("vehicles/V1/a", "vehicles/V2/a"):
            world.say(app, topic)
        del world.mesh.owners["V1"]  # as while etcd is away
        world.allow("app")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert all_kept(world) == [{}, {"vehicles/V1/a": b"x"}, {}]
        assert len(world.mesh.withdrawals) == 1
        if crash:
            world.restart_core()
            world.mesh.owners.pop("V1")
            world.mesh.connect()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        world.mesh.owners["V1"] = "edge-1"
        world.tick()
        assert all_kept(world) == [{}, {}, {}]
        assert len(world.mesh.withdrawals) == 0
        await world.mesh.withdrawals.stop()

    asyncio.run(main())


def test_an_edge_that_is_removed_leaves_no_dead_letter_of_a_withdrawal() -> None:
    world = World(1)
    app = world.app()
    world.say(app, "vehicles/V1/a")
    world.mesh.pipes["edge-1"].cut()
    app.publish("vehicles/V1/cmd", b"command")
    world.allow("app")
    link = world.mesh.links.pop("edge-1")
    assert link.spool.messages == 2
    for _ in link.discard():
        pass
    letters = world.mesh.core.broker.letters
    assert [letters.load(one).topic for one in letters.queue.after(0, 100)] == ["vehicles/V1/cmd"]


# The property that names the time


def properties_of(client: Client) -> list[tuple[str, str]]:
    found = []
    for packet in client.take(Publish):
        found += [] if packet.properties is None else packet.properties.user
    return found


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_no_client_sees_the_time_of_a_retained_message_and_none_can_set_it(qos: int) -> None:
    world = World(1)
    app = world.app()
    watcher = world.mesh.backend("watcher", "vehicles/#")
    early = world.mesh.vehicle(1, "#")
    properties = Properties()
    properties.user = [("own", "1")]
    app.publish("vehicles/V1/a", b"x", qos, retain=True, properties=properties)
    world.run()
    late = world.mesh.vehicle(1, "#")
    for client in (watcher, early, late):
        assert properties_of(client) == [("own", "1")]
    properties.user = [(VERSION, "!1.0")]
    app.publish("vehicles/V1/a", b"y", qos, retain=True, properties=properties)
    world.run()
    assert kept(world.edges["edge-1"]) == {"vehicles/V1/a": b"y"}
    known = world.edges["edge-1"].broker.retained.get("vehicles/V1/a")
    own = world.mesh.core.broker.retained.get("vehicles/V1/a")
    assert known is not None
    assert own is not None
    assert known.received == own.received
    assert vehicle_of("vehicles/V1/a") == "V1"
