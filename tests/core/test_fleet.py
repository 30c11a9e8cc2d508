"""Fleet-wide retained messages: an edge that is added later has what the edges before it have."""

from __future__ import annotations

from unittest.mock import patch

import pytest

from mesh.broker.versions import VERSION, Tombstones
from mesh.core.kinds import FLEET_GIVEN
from mesh.wire.packets import Publish
from mesh.wire.properties import Properties
from tests.core.harness import Edge, Mesh, acks, retained, say
from tests.fakes.clock import FakeClock
from tests.support.bench import subscribe


@pytest.fixture
def mesh() -> Mesh:
    mesh = Mesh(1)
    mesh.connect()
    return mesh


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_edge_that_is_added_later_gets_the_retained_messages_of_the_fleet(mesh: Mesh, qos: int) -> None:
    backend = mesh.backend()
    say(backend, mesh, "fleet/news", b"old", qos)
    say(backend, mesh, "fleet/news", b"new", qos)
    say(backend, mesh, "fleet/rules", b"rules", qos)
    say(backend, mesh, "fleet/gone", b"gone", qos)
    say(backend, mesh, "fleet/gone", b"", qos)
    say(backend, mesh, "vehicles/V1/state", b"of one vehicle", qos)
    name = mesh.add_edge()
    mesh.connect(name)
    assert retained(mesh.edges[name]) == {"fleet/news": b"new", "fleet/rules": b"rules"}
    assert mesh.edges[name].broker.retained.get("vehicles/V1/state") is None
    vehicle = mesh.edges[name].client("v", "watch")
    subscribe(vehicle, "fleet/#")
    mesh.run()
    messages = vehicle.take(Publish)
    assert sorted(message.payload for message in messages) == [b"new", b"rules"]
    assert all(not message.properties.user for message in messages if message.properties is not None)


def test_the_messages_survive_a_crash_of_the_core_before_the_edge_is_added(mesh: Mesh) -> None:
    say(mesh.backend(), mesh, "fleet/news", b"1")
    mesh = mesh.restart_core()
    name = mesh.add_edge()
    mesh.connect(name)
    assert retained(mesh.edges[name]) == {"fleet/news": b"1"}


def test_an_edge_gets_them_once(mesh: Mesh) -> None:
    for number in range(200):
        say(mesh.backend(), mesh, f"fleet/{number}", b"x")
    name = mesh.add_edge()
    mesh.connect(name)
    assert len(retained(mesh.edges[name])) == 200
    watcher = mesh.edges[name].client("w", "watch")
    subscribe(watcher, "fleet/#", retain_handling=2)
    for _ in range(2):
        mesh.pipes[name].cut()
        mesh.connect(name)
    mesh = mesh.restart_core()
    mesh.connect()
    assert watcher.take(Publish) == []
    assert mesh.links[name].spool.messages == 0


def test_a_crash_of_the_core_in_the_middle_leaves_none_out(mesh: Mesh) -> None:
    backend = mesh.backend()
    for number in range(300):
        say(backend, mesh, f"fleet/{number:03}", b"x")
    name = mesh.add_edge()
    mesh.connect(name)
    assert len(retained(mesh.edges[name])) == 300
    whole = mesh.core.store.disk
    assert [item for item in whole.values() if item.kind == FLEET_GIVEN and item.meta.startswith(name.encode())]
    for turns in range(1, 10):
        other = mesh.add_edge()
        mesh.pipes[other] = type(mesh.pipes[name])(mesh.links[other], mesh.edges[other])
        for _ in range(turns):
            mesh.edges[other].turn()
            mesh.core.turn()
            mesh.links[other].advance()
            mesh.links[other].flush()
        mesh = mesh.restart_core()
        mesh.connect()
        for _ in range(5):
            mesh.run()
        assert len(retained(mesh.edges[other])) == 300


def test_an_edge_that_lost_everything_gets_them_again(mesh: Mesh) -> None:
    say(mesh.backend(), mesh, "fleet/news", b"1")
    assert retained(mesh.edges["edge-1"]) == {"fleet/news": b"1"}
    mesh.pipes["edge-1"].cut()
    mesh.edges["edge-1"] = Edge(None, mesh.clock)
    mesh.connect()
    assert retained(mesh.edges["edge-1"]) == {"fleet/news": b"1"}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_is_published_while_the_edge_is_away_reaches_it(mesh: Mesh, qos: int) -> None:
    backend = mesh.backend()
    say(backend, mesh, "fleet/deleted", b"1", qos)
    mesh.pipes["edge-1"].cut()
    say(backend, mesh, "fleet/news", b"2", qos)
    say(backend, mesh, "fleet/deleted", b"", qos)
    mesh.connect()
    assert retained(mesh.edges["edge-1"]) == {"fleet/news": b"2"}


def test_another_filter_of_the_fleet_brings_its_messages() -> None:
    mesh = Mesh(1, fleet=("fleet/#",))
    mesh.connect()
    say(mesh.backend(), mesh, "site/map", b"1")
    assert mesh.edges["edge-1"].broker.retained.get("site/map") is None
    mesh.fleet = ("fleet/#", "site/#")
    mesh = mesh.restart_core()
    mesh.connect()
    assert mesh.edges["edge-1"].broker.retained.get("site/map") is not None


# Several cores


class TwoCores:
    """Two cores with the same edges and one clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.first = Mesh(1, clock=self.clock, core="core-1")
        self.second = Mesh(1, clock=self.clock, core="core-2")
        self.second.edges = self.first.edges
        self.both = (self.first, self.second)
        for mesh in self.both:
            mesh.connect()
        self.backends = [mesh.backend() for mesh in self.both]

    def say(self, core: int, topic: str, payload: bytes) -> None:
        say(self.backends[core], self.both[core], topic, payload)

    def add_edge(self, *order: int) -> Edge:
        """Add an edge, which the cores reach in this order."""
        name = self.first.add_edge()
        self.second.add_edge()
        self.second.edges = self.first.edges
        for core in order:
            self.both[core].connect(name)
        return self.first.edges[name]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_later_publish_counts_whichever_core_comes_first(order: tuple[int, int]) -> None:
    cores = TwoCores()
    cores.say(0, "fleet/a", b"first")
    cores.say(1, "fleet/a", b"second")
    cores.say(1, "fleet/b", b"first")
    cores.say(0, "fleet/b", b"second")
    expected = {"fleet/a": b"second", "fleet/b": b"second"}
    assert retained(cores.first.edges["edge-1"]) == expected
    assert retained(cores.add_edge(*order)) == expected


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_another_core_deleted_does_not_come_back(order: tuple[int, int]) -> None:
    cores = TwoCores()
    cores.say(0, "fleet/a", b"1")
    cores.say(1, "fleet/a", b"")
    assert retained(cores.add_edge(*order)) == {}


def test_an_edge_remembers_a_deletion_through_a_crash() -> None:
    cores = TwoCores()
    cores.say(0, "fleet/a", b"1")
    cores.say(1, "fleet/a", b"")
    edge = cores.add_edge(1)
    name = cores.first.names[-1]
    cores.second.kill(name)
    assert cores.second.edges[name] is not edge
    cores.first.connect(name)
    assert retained(cores.second.edges[name]) == {}


def test_a_new_publish_counts_although_the_clock_of_its_core_is_late() -> None:
    cores = TwoCores()
    cores.say(0, "fleet/a", b"by a clock that is ahead")
    cores.clock.now -= 100
    cores.say(1, "fleet/a", b"the last")
    assert retained(cores.first.edges["edge-1"]) == {"fleet/a": b"the last"}


def test_a_back_end_cannot_set_the_version_of_a_fleet_message(mesh: Mesh) -> None:
    backend = mesh.backend()
    properties = Properties()
    properties.user = [(VERSION, "=1.0")]
    say(backend, mesh, "fleet/a", b"1")
    backend.publish("fleet/a", b"2", retain=True, properties=properties)
    mesh.run()
    assert retained(mesh.edges["edge-1"]) == {"fleet/a": b"2"}
    assert [reason for _, reason in acks(backend)][-1] in (0, 0x10)


def test_tombstones_are_bounded(mesh: Mesh) -> None:
    tombstones = Tombstones(mesh.core.broker.persistence, 3)
    before = len(mesh.core.store.items)
    for number in range(10):
        tombstones.add(f"fleet/{number}", float(number + 1))
    assert tombstones.topics() == ["fleet/7", "fleet/8", "fleet/9"]
    assert len(mesh.core.store.items) == before + 3


def test_a_core_says_on_each_connection_when_an_edge_has_all() -> None:
    mesh = Mesh(1)
    broker = mesh.edges["edge-1"].broker
    assert broker.withheld([]) == []
    assert broker.withheld([mesh.core_name]) == [mesh.core_name]
    backend = mesh.backend()
    for number in range(200):  # more than is given at a time
        say(backend, mesh, f"fleet/{number}", b"x")
    for _ in range(2):
        mesh.connect()
        assert broker.withheld([mesh.core_name]) == []
        assert len(retained(mesh.edges["edge-1"])) == 200
        assert mesh.links["edge-1"].spool.messages == 0
        mesh.pipes["edge-1"].cut()
        assert broker.withheld([mesh.core_name]) == [mesh.core_name]
    for filter in ("$mesh/#", "$mesh/given"):
        assert subscribe(mesh.edges["edge-1"].client("v", "V1", 0), filter) != [1]


def test_connections_that_end_before_the_edge_answers_leave_one_message_for_it() -> None:
    mesh = Mesh(1)
    link = mesh.links["edge-1"]
    for _ in range(5):
        pipe = mesh.pipes["edge-1"] = mesh.pipe(link, mesh.edges["edge-1"])
        with patch.object(pipe, "established", lambda pipe=pipe: setattr(pipe, "mute", True)):
            mesh.run()
        assert link.spool.messages == 1
        pipe.cut()
    mesh.connect()
    assert link.spool.messages == 0
    assert mesh.edges["edge-1"].broker.withheld([mesh.core_name]) == []
