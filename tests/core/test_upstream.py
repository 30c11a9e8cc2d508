"""The identifiers of filters: each stands for one filter, in any order of subscription, also after a restart."""

from __future__ import annotations

import zlib

import pytest

from mesh.broker.principal import BACKEND
from mesh.core.kinds import IDENTIFIER
from mesh.core.recovery import CoreItems
from mesh.core.upstream import RETIRED, Upstream
from mesh.wire.packets import Subscribe, Subscription
from tests.core.harness import Mesh, filters
from tests.fakes.store import MemoryStore

# Filters whose checksums are equal in the bits that give the identifier.
ONE, OTHER = "$share/rocket-lilac/vehicles/+/status", "$share/basin-quartz/vehicles/+/alarm"
PLAIN_ONE, PLAIN_OTHER = "vehicles/+/lantern/yarrow", "vehicles/+/north/berry"


def upstream(store: MemoryStore, *held: str, retired: int = RETIRED) -> Upstream:
    made = Upstream(store, lambda _filter, _wanted: None, held.__contains__, retired)
    made.restore(CoreItems([item for item in store.live() if item.kind == IDENTIFIER]).identifiers)
    return made


def identifiers(made: Upstream) -> dict[str, int]:
    return {filter: assignment.identifier for filter, assignment in made.filters().items()}


@pytest.mark.parametrize("pair", [(ONE, OTHER), (OTHER, ONE), (PLAIN_ONE, PLAIN_OTHER), (PLAIN_OTHER, PLAIN_ONE)])
def test_filters_with_equal_checksums_keep_identifiers_after_a_restart(pair: tuple[str, str]) -> None:
    one, other = pair
    assert zlib.crc32(one.encode()) & 0x7FFFFFF == zlib.crc32(other.encode()) & 0x7FFFFFF
    store = MemoryStore()
    before = upstream(store)
    before.wanted(one)
    before.wanted(other)
    given = identifiers(before)
    assert len(set(given.values())) == 2
    store.commit()
    for order in (pair, (other, one)):
        after = upstream(store.crash())
        for filter in order:
            after.wanted(filter)
        assert identifiers(after) == given


def test_the_identifier_of_a_retired_filter_is_not_reused() -> None:
    store = MemoryStore()
    before = upstream(store)
    before.wanted(ONE)
    identifier = identifiers(before)[ONE]
    before.unwanted(ONE)
    before.wanted(OTHER)
    assert identifiers(before)[OTHER] != identifier
    assert before.filter_of(identifier) is None
    store.commit()
    after = upstream(store.crash())
    after.wanted(OTHER)
    after.wanted(ONE)
    assert identifiers(after)[ONE] == identifier
    assert after.filter_of(identifier) == ONE


def test_an_identifier_is_written_once_for_a_filter_wanted_repeatedly() -> None:
    store = MemoryStore()
    made = upstream(store)
    for _ in range(3):
        made.wanted(ONE)
        made.unwanted(ONE)
    assert store.position == 1


def test_the_filters_retired_first_are_forgotten() -> None:
    store = MemoryStore()
    made = upstream(store, "b", retired=3)
    for filter in "abcdef":
        made.wanted(filter)
        made.unwanted(filter)
    kept = {item.meta[4:].decode() for item in store.live()}
    assert kept == {"b", "e", "f"}  # a disconnected edge may still have b


def test_sys_filters_are_not_sent_to_edges() -> None:
    store = MemoryStore()
    made = upstream(store)
    made.wanted("$SYS/#")
    made.wanted("$share/g/$SYS/#")
    made.unwanted("$SYS/#")
    assert made.filters() == {}
    assert store.live() == []


@pytest.mark.parametrize(("one", "other"), [(ONE, OTHER), (OTHER, ONE)])
def test_a_message_queued_at_an_edge_reaches_its_group_after_a_restart(one: str, other: str) -> None:
    mesh = Mesh(1)
    mesh.connect()
    member = mesh.backend("one", one, expiry=100)
    mesh.backend("other", other, expiry=100)
    # Subscribed again, it follows the other filter in the journal, so a restart restores it second.
    member.send(Subscribe(2, [Subscription(one, 2)]))
    mesh.run()
    mesh = mesh.restart_core()
    mesh.vehicle(1).publish("vehicles/V1/status", b"status")
    mesh.vehicle(1).publish("vehicles/V1/alarm", b"alarm")
    mesh.connect()
    for name, filter in (("one", one), ("other", other)):
        client = mesh.core.client(name, "app", BACKEND, clean=False, expiry=100)
        assert client.messages() == [filter.rpartition("/")[2].encode()]


def test_an_edge_gets_a_filter_when_its_identifier_is_durable() -> None:
    mesh = Mesh(1)
    mesh.connect()
    mesh.core.auto = False  # the journal of the core does not commit
    backend = mesh.core.client("app", "app", BACKEND)
    backend.send(Subscribe(1, [Subscription(ONE, 2)]))
    mesh.run()
    assert filters(mesh.edges["edge-1"]) == []
    assert mesh.links["edge-1"].waits()
    mesh.core.auto = True
    mesh.run()
    assert filters(mesh.edges["edge-1"]) == [ONE]


def test_a_filter_that_an_edge_may_have_is_removed_after_a_crash() -> None:
    mesh = Mesh(1)
    mesh.connect()
    mesh.core.client("app", "app", BACKEND).send(Subscribe(1, [Subscription(ONE, 2)]))
    mesh.core.turn()
    mesh.links["edge-1"].advance()
    mesh.pipes["edge-1"].deaf = True  # the edge's answer does not reach the core before it dies
    mesh.run()
    assert filters(mesh.edges["edge-1"]) == [ONE]
    mesh = mesh.restart_core()
    mesh.connect()
    assert filters(mesh.edges["edge-1"]) == []


def test_retired_filters_are_bounded_in_bytes() -> None:
    store = MemoryStore()
    made = Upstream(store, lambda _filter, _wanted: None, lambda _filter: False, retired_bytes=200_000)
    filters = [f"{number}" + "x" * 60_000 for number in range(20)]
    for filter in filters:
        made.wanted(filter)
        made.unwanted(filter)
    assert len(store.items) == 3
    made.wanted(filters[-1])  # one that is remembered keeps its identifier, and is not counted as retired
    made.unwanted(filters[-1])
    assert len(store.items) == 3
    store.commit()
    again = Upstream(store.crash(), lambda _filter, _wanted: None, lambda _filter: False, retired_bytes=200_000)
    again.restore(store.live())
    again.wanted("a")
    again.unwanted("a")
    assert len(again._retired) == 4
