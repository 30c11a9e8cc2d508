"""Facts about the changes between any two topologies, each against a second account of it that is made another way.

MESH_EXAMPLES=30 in the environment makes 30 times as many pairs, some ten thousand in two minutes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.topology.change import REORDERED, Change, Kind, changes, restarted
from mesh.topology.nodes import nodes, replica_names
from mesh.topology.provider import IdentityRule
from mesh.topology.topology import Topology, as_dict, from_dict
from tests.topology.pairs import SECRETS, consistent, pairs, topologies

NAMED = {
    "front_doors": "name", "cores": "name", "pools": "name", "edges": "name", "users": "user", "providers": "name",
    "roles": "name",
}  # fmt: skip
FILE = {
    "template": "topics.vehicle", "fleet": "topics.fleet", "source": "from", "prefix": "match.prefix",
    "internal": "internal.tls",
}  # fmt: skip
REFUSED_KEYS = ("mesh", "etcd", "template", "internal", "data", "ray")

EXAMPLES = int(os.environ.get("MESH_EXAMPLES", "1"))

owned = st.dictionaries(
    st.sampled_from(["e1", "e2", "e3", "x", "x-2", "x-3", "core", "core-2", "core-3", "heart", "heart-2", "heart-3"]),
    st.sampled_from([0, 0, 0, 7]),
)


def leaves(value: Any, path: str = "", key: str = "") -> Iterator[tuple[str, object]]:
    """The paths of a topology's dictionary with their values; the items of lists by their names."""
    if key == "listen":
        yield path, [tuple(item["address"].items()) for item in value]
    elif key in NAMED and all(isinstance(item, dict) for item in value):  # those of a user are texts
        for item in value:
            place = f"{path}.{item[NAMED[key]]}"
            yield place, None
            yield from leaves({name: one for name, one in item.items() if name != NAMED[key]}, place)
    elif isinstance(value, dict):
        for name, item in value.items():
            word = name if name == "template" and path else FILE.get(name, name)  # a provider has a template, too
            yield from leaves(item, ".".join(filter(None, (path, word))), name)
    else:
        yield path, value


def plain(path: str) -> str:
    """The path of an edge without its pool: an edge that moves is the same edge."""
    return re.sub(r"^pools\.[^.]+\.edges\.", "edges.", path)


def differing(old: Topology, new: Topology) -> set[str]:
    before, after = dict(leaves(as_dict(old))), dict(leaves(as_dict(new)))
    return {path for path in {*before, *after} if before.get(path, ()) != after.get(path, ())}


def below(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other}.")


def is_covered(old: Topology, new: Topology, found: tuple[Change, ...]) -> None:
    paths = {plain(change.path) for change in found}
    apart = {plain(path) for path in differing(old, new)}
    for path in apart:
        assert any(below(path, one) for one in paths), f"no change says that {path} differs"
    for change in found:
        if REORDERED not in change.what:
            assert any(below(path, plain(change.path)) for path in apart), f"{change} says what is not so"


def of(topology: Topology) -> dict[str, tuple[str, str, dict[str, float]]]:
    """The role of each node, the group of the file that it belongs to, and its resources."""
    found = {edge.name: ("edge", "", edge.resources) for edge in topology.edges()}
    for role, groups in (("door", topology.front_doors), ("core", topology.cores)):
        for group in groups:
            found |= dict.fromkeys(replica_names(group), (role, group.name, group.resources))
    return found


def pool_of(topology: Topology) -> dict[str, str]:
    return {edge.name: pool.name for pool in topology.pools for edge in pool.edges}


def must_be_refused(old: Topology, new: Topology, counts: Mapping[str, int]) -> bool:
    before, after = of(old), of(new)
    left = [name for name, node in before.items() if name not in after or after[name][:2] != node[:2]]
    come = [name for name, node in after.items() if name not in before or before[name][:2] != node[:2]]
    stay = [name for name in before if name not in left]
    return (
        any(getattr(old, key) != getattr(new, key) for key in REFUSED_KEYS)
        or any(before[name][0] != "door" and counts.get(name) != 0 for name in left)
        or any(name in before for name in come)
        or any(before[name][0] != "door" and before[name][2] != after[name][2] for name in stay)
    )


def named(rule: IdentityRule) -> tuple[str, str, str]:
    """What names a vehicle."""
    return rule.source, rule.pattern, rule.default


def must_restart(old: Topology, new: Topology) -> set[str]:
    before, after = of(old), of(new)
    stay = {name for name in before if name in after and before[name][0] == after[name][0]}
    if old.bind != new.bind or old.map != new.map:
        return stay
    doors = {name for name in stay if before[name][0] == "door"}
    return {
        *(doors if named(old.identity) != named(new.identity) else ()),
        *(name for name in doors if before[name][1] == after[name][1] and before[name][2] != after[name][2]),
        *(name for name, pool in pool_of(old).items() if pool_of(new).get(name, pool) != pool),
    }


def come_and_gone(old: Topology, new: Topology) -> None:
    zero = dict.fromkeys({*of(old), *of(new)}, 0)
    there, back = changes(old, new, zero), changes(new, old, zero)
    assert sorted(plain(change.path) for change in there) == sorted(plain(change.path) for change in back)
    kinds = {(plain(change.path), change.kind) for change in there if " -> " in change.what and not change.nodes}
    assert kinds == {(plain(change.path), change.kind) for change in back if " -> " in change.what and not change.nodes}

    def named(found: tuple[Change, ...]) -> set[str]:
        return {name for change in found if change.kind is not Kind.ROLLING for name in change.nodes}

    assert named(there) == named(back)
    assert {*of(old)} ^ {*of(new)} <= named(there)


@settings(max_examples=400 * EXAMPLES)
@given(pairs(), owned)
def test_the_changes_of_two_topologies(pair: tuple[Topology, Topology], counts: dict[str, int]) -> None:
    old, new = pair
    found = changes(old, new, counts)
    assert changes(old, old, counts) == changes(new, new) == ()
    assert (found == ()) == (old == new)
    is_covered(old, new, found)
    assert any(change.kind is Kind.REFUSED for change in found) == must_be_refused(old, new, counts)
    assert restarted(old, new) == must_restart(old, new)
    come_and_gone(old, new)
    for change in found:
        assert bool(change.instead) == (change.kind is Kind.REFUSED)
        assert change.why or change.kind is Kind.LIVE
    assert not any(secret in str(asdict(change)) for change in found for secret in SECRETS)
    rest = changes(old, new, counts, running=False)
    assert [change.path for change in rest] == [change.path for change in found]
    assert Kind.ROLLING not in {change.kind for change in rest}


@settings(max_examples=200 * EXAMPLES)
@given(topologies(), topologies())
def test_live_changes_alone_restart_and_refuse_nothing(old: Topology, new: Topology) -> None:
    mid = old
    for item in fields(Topology):
        one = replace(old, **{item.name: getattr(new, item.name)})
        both = replace(mid, **{item.name: getattr(new, item.name)})
        if {change.kind for change in changes(old, one)} <= {Kind.LIVE} and consistent(both):
            mid = both
    assert restarted(old, mid) == frozenset()
    assert {change.kind for change in changes(old, mid)} <= {Kind.LIVE}


@given(topologies())
def test_random_topologies_are_consistent(topology: Topology) -> None:
    names = [spec.name for spec in nodes(topology)]
    assert len(names) == len(set(names))


@settings(max_examples=200 * EXAMPLES)
@given(pairs(), owned)
def test_topologies_from_etcd_have_the_same_changes(pair: tuple[Topology, Topology], counts: dict[str, int]) -> None:
    """``mesh plan`` compares a file with settings that went through JSON."""
    old, new = pair
    kept = from_dict(json.loads(json.dumps(as_dict(old))))
    assert kept == old
    assert changes(kept, new, counts) == changes(old, new, counts)
    assert changes(kept, old) == ()
