"""What each change of a topology does to a running mesh."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.topology.change import Change, Kind, changes, orphans, restarted, stray
from mesh.topology.load import loads
from mesh.topology.topology import Topology

LIVE, ROLLING, REFUSED = Kind.LIVE, Kind.ROLLING, Kind.REFUSED

TEXT = """\
mesh: demo
ray: "10.0.0.4:6379"
etcd: ["http://e:1"]
front_doors:
  - {name: door, replicas: 2, listen: [{mqtt: "127.0.0.1:1883"}, {mqtt: "127.0.0.1:1885"}]}
cores: [{name: core, replicas: 2, listen: [{mqtt: "127.0.0.1:1884"}], resources: {core: 1}}]
pools:
  - {name: standard, edges: [{name: edge-1}, {name: edge-2, weight: 50, resources: {big: 1}}]}
  - {name: legacy, match: {prefix: OLD}, edges: [{name: old-1}]}
inbox: {subscribe: ["vehicles/{vehicle}/cmd/#"]}
backends: {anonymous: false, users: [{user: fleet, password: "first"}, {user: depot, password: "second"}]}
limits: {queue_messages: 1000}
telemetry: {sample: 0.5}
"""


def topology(text: str = TEXT) -> Topology:
    return loads(text.encode(), "mesh.yaml", Path("/srv/mesh"))


def changed(old: str, new: str, text: str = TEXT) -> Topology:
    assert text.count(old) == 1, old
    return topology(text.replace(old, new))


def told(old: Topology, new: Topology, owned: dict[str, int] | None = None) -> list[tuple[str, Kind, str]]:
    return [(change.path, change.kind, change.what) for change in changes(old, new, owned)]


def the(new: Topology, owned: dict[str, int] | None = None) -> Change:
    found = changes(topology(), new, owned)
    assert len(found) == 1, found
    return found[0]


def test_equal_topologies_have_no_changes() -> None:
    assert changes(topology(), topology()) == ()
    assert restarted(topology(), topology()) == frozenset()


# A part of the file, its new text, and the change: its path, its kind, and what it says.
ONE = [
    ("queue_messages: 1000", "queue_messages: 2000", "limits.queue_messages", LIVE, "1000 -> 2000"),
    ("queue_messages: 1000", "queue_bytes: 1MiB", "limits.queue_bytes", LIVE, "64MiB -> 1MiB"),
    ("queue_messages: 1000", "connect_timeout: 120s", "limits.connect_timeout", LIVE, "10s -> 2m"),
    ("queue_messages: 1000", "attach_grace: 90s", "limits.attach_grace", LIVE, "1m -> 90s"),
    ("queue_messages: 1000", "connections: 500", "limits.connections", LIVE, "auto -> 500"),
    ("queue_messages: 1000", "disk: 1GiB", "limits.disk", LIVE, "none -> 1GiB"),
    ("queue_messages: 1000", "session_expiry: 30d", "limits.session_expiry", LIVE, "never -> 30d"),
    ("sample: 0.5", "sample: 0.25", "telemetry.sample", LIVE, "0.5 -> 0.25"),
    ("sample: 0.5", "sample: 0.5, watch: [V1, V2]", "telemetry.watch", LIVE, "none -> [V1, V2]"),
    ("sample: 0.5", 'sample: 0.5, otlp: "http://a:1"', "telemetry.otlp", LIVE, "none -> http://a:1"),
    ("sample: 0.5}", 'sample: 0.5}\nconsole: "127.0.0.1:8080"', "console", LIVE, "none -> 127.0.0.1:8080"),
    ("sample: 0.5}", "sample: 0.5}\ntopics: {fleet: [fleet/#]}", "topics.fleet", LIVE, "none -> [fleet/#]"),
    ("sample: 0.5}", "sample: 0.5}\naccess: {refusal: unspecified_error}", "access.refusal", LIVE,
     "not_authorized -> unspecified_error"),
    ("sample: 0.5}", "sample: 0.5}\naccess: {vehicles: {publish: [a/#]}}", "access.vehicles.publish", LIVE,
     "none -> [a/#]"),
    ("sample: 0.5}", "sample: 0.5}\nbind: 127.0.0.2", "bind", ROLLING, "127.0.0.1 -> 127.0.0.2"),
    ("sample: 0.5}", "sample: 0.5}\nmap: {cache: 5000}", "map.cache", ROLLING, "200000 -> 5000"),
    ("sample: 0.5}", "sample: 0.5}\nidentity: {from: client_id}", "identity.from", ROLLING, "username -> client_id"),
    ("sample: 0.5}", "sample: 0.5}\nidentity: {set_username: true}", "identity.set_username", LIVE, "false -> true"),
    ("sample: 0.5}", 'sample: 0.5}\nidentity: {client_ids: ["{vehicle}"]}', "identity.client_ids", LIVE,
     "none -> [{vehicle}]"),
    ("sample: 0.5}", "sample: 0.5}\nidentity: {providers: [{name: c, certificate: dns}, anonymous]}",
     "identity.providers.c", LIVE, "added"),
    ('{mqtt: "127.0.0.1:1884"}', '{mqtt: "127.0.0.1:1884", identify: [users]}',
     "cores.core.listen.mqtt://127.0.0.1:1884.identify", LIVE, "none -> [users]"),
    ("sample: 0.5}", "sample: 0.5}\ndata: other", "data", REFUSED, "/srv/mesh/.mesh -> /srv/mesh/other"),
    ("10.0.0.4:6379", "10.0.0.5:6379", "ray", REFUSED, "10.0.0.4:6379 -> 10.0.0.5:6379"),
    ('["http://e:1"]', '["http://e:1", "http://f:1"]', "etcd.endpoints", REFUSED,
     "[http://e:1] -> [http://e:1, http://f:1]"),
    ("mesh: demo", "mesh: other", "mesh", REFUSED, "demo -> other"),
    ("prefix: OLD", "prefix: OLDE", "pools.legacy.match.prefix", LIVE, "OLD -> OLDE"),
    ("weight: 50", "weight: 0", "pools.standard.edges.edge-2.weight", LIVE, "50 -> 0"),
    ("big: 1", "big: 2", "pools.standard.edges.edge-2.resources", REFUSED, "{big: 1} -> {big: 2}"),
    ("resources: {core: 1}", "resources: {core: 2}", "cores.core.resources", REFUSED, "{core: 1} -> {core: 2}"),
    ("name: door,", "name: door, redirect: other,", "front_doors.door.redirect", LIVE, "none -> other"),
    ("name: door,", "name: door, resources: {a: 1},", "front_doors.door.resources", ROLLING, "none -> {a: 1}"),
    ('{mqtt: "127.0.0.1:1883"}, ', "", "front_doors.door.listen", LIVE, "mqtt://127.0.0.1:1883 removed"),
    ('{mqtt: "127.0.0.1:1884"}', '{mqtt: "127.0.0.1:1884"}, {mqtt: "127.0.0.1:1886"}', "cores.core.listen", LIVE,
     "mqtt://127.0.0.1:1886 added"),
    ('password: "first"', 'password: "third"', "backends.users.fleet.password", LIVE, "changed"),
    ('{user: fleet, password: "first"}, ', "", "backends.users.fleet", LIVE, "removed"),
    ('inbox: {subscribe: ["vehicles/{vehicle}/cmd/#"]}\n', "", "inbox", LIVE, "removed"),
    ("{name: edge-1}, ", "{name: edge-1}, {name: edge-9}, ", "pools.standard.edges.edge-9", LIVE, "added"),
    ("replicas: 2, listen: [{mqtt: \"127.0.0.1:1883\"}", "replicas: 1, listen: [{mqtt: \"127.0.0.1:1883\"}",
     "front_doors.door.replicas", LIVE, "2 -> 1"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "path", "kind", "what"), ONE, ids=[f"{row[2]}-{row[4]}" for row in ONE])
def test_a_change_has_its_path_its_kind_and_both_values(old: str, new: str, path: str, kind: Kind, what: str) -> None:
    assert told(topology(), changed(old, new)) == [(path, kind, what)]


def test_a_mesh_with_its_own_ray_and_etcd_is_named_so() -> None:
    cluster = 'ray: "10.0.0.4:6379"\netcd: ["http://e:1"]\n'
    old = TEXT.replace("name: core, replicas: 2", "name: core")
    assert told(topology(old.replace(cluster, "")), topology(old)) == [
        ("etcd.endpoints", REFUSED, "embedded -> [http://e:1]"),
        ("ray", REFUSED, "local -> 10.0.0.4:6379"),
    ]


def test_the_template_is_refused_with_the_reason_and_the_remedy() -> None:
    new = topology(TEXT.replace("vehicles/", "cars/") + "topics: {vehicle: 'cars/{vehicle}/#'}\n")
    template = changes(topology(), new)[0]
    assert (template.path, template.kind) == ("topics.vehicle", REFUSED)
    assert template.why
    assert template.instead


# Nodes that come and go


def test_an_edge_that_owns_vehicles_cannot_be_removed() -> None:
    new = changed("{name: edge-1}, ", "")
    refused = the(new, {"edge-1": 1204})
    assert (refused.path, refused.kind, refused.what) == ("pools.standard.edges.edge-1", REFUSED, "removed")
    assert refused.why == "edge-1 has 1204 vehicles"
    assert "weight: 0" in refused.instead
    assert "stay with it" in refused.instead
    assert refused.nodes == ("edge-1",)


@pytest.mark.parametrize("owned", [None, {}, {"edge-2": 0}])
def test_an_edge_of_which_nothing_is_known_cannot_be_removed(owned: dict[str, int] | None) -> None:
    refused = the(changed("{name: edge-1}, ", ""), owned)
    assert (refused.kind, refused.why) == (REFUSED, "how many vehicles edge-1 has is not known")


def test_an_edge_that_owns_nothing_can_be_removed() -> None:
    removed = the(changed("{name: edge-1}, ", ""), {"edge-1": 0})
    assert (removed.kind, removed.what, removed.nodes) == (LIVE, "removed", ("edge-1",))


def test_a_pool_is_added_with_its_edges() -> None:
    new = changed("  - {name: legacy", "  - {name: new, match: {prefix: N}, edges: [{name: new-1}]}\n  - {name: legacy")
    assert told(topology(), new) == [("pools.new", LIVE, "added"), ("pools.new.edges.new-1", LIVE, "added")]


def test_a_pool_is_removed_and_its_edge_serves_its_vehicles_in_another_pool() -> None:
    text = TEXT.replace("  - {name: legacy, match: {prefix: OLD}, edges: [{name: old-1}]}\n", "")
    assert told(topology(), topology(text)) == [
        ("pools.legacy", LIVE, "removed"),
        ("pools.legacy.edges.old-1", REFUSED, "removed"),
    ]
    moved = changed("{name: edge-1}, ", "{name: edge-1}, {name: old-1, weight: 0}, ", text)
    assert told(topology(), moved) == [
        ("pools.legacy", LIVE, "removed"),
        ("pools.standard.edges.old-1", ROLLING, "moved from pool legacy"),
        ("pools.standard.edges.old-1.weight", LIVE, "100 -> 0"),
    ]
    assert restarted(topology(), moved) == {"old-1"}


def test_replicas_keep_their_names_when_their_number_changes() -> None:
    one = TEXT.replace("name: core, replicas: 2", "name: core")
    three = topology(TEXT.replace("name: core, replicas: 2", "name: core, replicas: 3"))
    more = changes(topology(one), three)
    assert [(change.path, change.kind, change.what, change.nodes) for change in more] == [
        ("cores.core.replicas", LIVE, "1 -> 3", ("core-2", "core-3"))
    ]
    fewer = changes(three, topology(one), {"core-2": 0, "core-3": 7})
    assert [(change.kind, change.what, change.nodes) for change in fewer] == [
        (REFUSED, "3 -> 1", ("core-2", "core-3"))
    ]
    assert fewer[0].why == "core-3 has 7 sessions of back ends or messages for edges"
    assert changes(three, topology(one), {"core-2": 0, "core-3": 0})[0].kind is LIVE


def test_a_core_is_removed_only_when_it_is_known_to_keep_nothing() -> None:
    more = topology(TEXT.replace("cores: [", 'cores: [{name: other, listen: [{mqtt: "127.0.0.1:1899"}]}, '))
    assert the(more).nodes == ("other",)
    assert [change.kind for change in changes(more, topology())] == [REFUSED]
    assert [change.kind for change in changes(more, topology(), {"other": 0})] == [LIVE]


def test_a_front_door_is_removed_with_its_replicas() -> None:
    more = topology(
        TEXT.replace("cores:", '  - {name: north, replicas: 2, listen: [{mqtt: "127.0.0.1:1899"}]}\ncores:')
    )
    (removed,) = changes(more, topology())
    assert (removed.path, removed.kind, removed.nodes) == ("front_doors.north", LIVE, ("north", "north-2"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # A door where an edge was, and a group with the name of another group's replica.
        ("{name: edge-1}, ", ""),
        ("name: core, replicas: 2", "name: core, replicas: 1"),
    ],
)
def test_a_new_node_cannot_have_the_name_of_another(old: str, new: str) -> None:
    name = "edge-1" if "edge" in old else "core-2"
    added = f'cores:\n  - {{name: {name}, listen: [{{mqtt: "127.0.0.1:1899"}}]}}\n  - {{'
    after = TEXT.replace(old, new).replace("cores: [{", added).replace("{core: 1}}]", "{core: 1}}")
    found = changes(topology(), topology(after), {name: 0})
    refused = next(change for change in found if change.path == f"cores.{name}")
    assert (refused.kind, refused.instead) == (REFUSED, "choose another name")
    assert refused.why == f"another {'edge' if 'edge' in old else 'core'} is named {name}"


def test_rolling_changes_name_the_nodes_that_restart() -> None:
    assert restarted(topology(), changed("sample: 0.5}", "sample: 0.5}\nbind: 127.0.0.2")) == {
        "edge-1", "edge-2", "old-1", "core", "core-2", "door", "door-2"
    }  # fmt: skip
    assert restarted(topology(), changed("name: door,", "name: door, resources: {a: 1},")) == {"door", "door-2"}
    # A node that is new has the new settings already.
    new = changed("name: door, replicas: 2,", "name: door, replicas: 3, resources: {a: 1},")
    assert restarted(topology(), new) == {"door", "door-2"}


def test_a_mesh_that_is_down_moves_and_restarts_nothing() -> None:
    new = topology(f"{TEXT}data: other\nbind: 127.0.0.2\n".replace("big: 1", "big: 2"))
    assert {change.kind for change in changes(topology(), new)} == {ROLLING, REFUSED}
    assert {change.kind for change in changes(topology(), new, running=False)} == {LIVE}
    for text in (TEXT.replace("{name: edge-1}, ", ""), TEXT.replace("mesh: demo", "mesh: other")):
        assert [change.kind for change in changes(topology(), topology(text), running=False)] == [REFUSED]


def test_a_mesh_does_not_start_without_an_edge_that_owns_vehicles() -> None:
    assert orphans(topology(), {"edge-1": 10, "edge-9": 0}) == ()
    (refused,) = orphans(topology(), {"edge-1": 10, "edge-9": 3})
    assert (refused.kind, refused.what, refused.why) == (REFUSED, "no edge 'edge-9'", "edge-9 has 3 vehicles")
    assert "edge-9" in refused.instead
    assert "weight: 0" in refused.instead


def test_a_lower_bound_is_named_as_one() -> None:
    (refused,) = changes(topology(), changed("{name: edge-1}, ", ""), {"edge-1": 9}, exact=False)
    assert refused.why == "edge-1 has at least 9 vehicles"
    assert orphans(topology(), {"edge-9": 3}, exact=False)[0].why == "edge-9 has at least 3 vehicles"


@given(st.text("OLDE12", max_size=4), st.sampled_from(["edge-1", "edge-2", "old-1", "edge-9"]))
def test_a_vehicle_stays_against_the_rules_if_its_pool_does_not_have_its_edge(vehicle: str, edge: str) -> None:
    pool = topology().pool_of(vehicle)
    assert pool is not None
    assert stray(topology())(vehicle, edge) == (edge not in {one.name for one in pool.edges})


def test_a_vehicle_that_no_pool_takes_stays_against_the_rules() -> None:
    text = TEXT.replace("{name: standard,", "{name: standard, match: {prefix: N},")
    assert stray(topology(text))("V1", "edge-1")
    assert not stray(topology(text))("N1", "edge-1")


def test_the_order_of_the_file_is_told() -> None:
    edges = "{name: edge-1}, {name: edge-2, weight: 50, resources: {big: 1}}"
    new = changed(edges, "{name: edge-2, weight: 50, resources: {big: 1}}, {name: edge-1}")
    assert told(topology(), new) == [("pools.standard.edges", LIVE, "in another order")]


def test_listeners_with_port_0_are_counted() -> None:
    listener = '{mqtt: "[::1]:0"}'
    one, two = (TEXT.replace('{mqtt: "127.0.0.1:1884"}', ports) for ports in (listener, f"{listener}, {listener}"))
    assert [change[2] for change in told(topology(one), topology(two))] == ["mqtt://[::1]:0 (2) added"]
    assert [change[2] for change in told(topology(two), topology(one))] == ["mqtt://[::1]:0 (2) removed"]


def test_no_secret_is_shown() -> None:
    new = topology(
        TEXT.replace('"first"', '"third"')
        .replace("user: depot", "user: night")
        .replace('["http://e:1"]', '{endpoints: ["http://e:1"], auth: {user: me, password: fourth}}')
    )
    text = " ".join(str(asdict(change)) for pair in ((topology(), new), (new, topology())) for change in changes(*pair))
    assert not [secret for secret in ("first", "second", "third", "fourth") if secret in text]
