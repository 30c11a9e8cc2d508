"""Every live key has a test of its effect, and every node takes a change of each key that a running mesh takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import trustme

from mesh.policy.secrettext import SecretText
from mesh.registry.embedded import EmbeddedEtcd
from mesh.topology import topology as terms
from mesh.topology.change import Kind, changes
from mesh.topology.keys import Declared, Key, Live, Members, Parts, Refused, declared
from mesh.topology.provider import IdentityRule, ProviderSpec
from mesh.topology.remote import HeaderSpec, HttpSpec, JwtSpec
from mesh.topology.topology import (
    Access,
    AccessRule,
    BackendRule,
    BackendUser,
    CoreSpec,
    DeadLettersSpec,
    EdgeSpec,
    FrontDoorSpec,
    InboxSpec,
    LimitsSpec,
    ListenerSpec,
    LogsSpec,
    PoolSpec,
    RoleSpec,
    TelemetrySpec,
    TlsSpec,
    Topology,
)
from mesh.topology.units import Address
from mesh.transport.listen import HeaderRule
from tests.support.effects import SHOWN
from tests.support.nodes import Nodes, etcd, with_nodes
from tests.support.ports import free_port

__all__ = ["etcd"]  # a fixture

SECTIONS: dict[str, type] = {
    "identity": IdentityRule,
    "limits": LimitsSpec,
    "access": Access,
    "access.vehicles": AccessRule,
    "access.backends": AccessRule,
    "access.roles": RoleSpec,
    "backends": BackendRule,
    "dead_letters": DeadLettersSpec,
    "inbox": InboxSpec,
    "telemetry": TelemetrySpec,
    "logs": LogsSpec,
    "front_doors": FrontDoorSpec,
    "cores": CoreSpec,
    "tls": TlsSpec,
}
NODES = {"front_doors.replicas", "cores.replicas"}  # the controller starts and ends them
ROOMS = (
    "tests.broker.test_live",
    "tests.broker.test_live_access",
    "tests.broker.test_roles",
    "tests.console.test_moves",
    "tests.core.test_live",
    "tests.edge.test_live",
    "tests.frontdoor.test_live",
    "tests.frontdoor.test_live_identity",
    "tests.frontdoor.test_tls",
    "tests.node.test_live_services",
)


def live_keys() -> list[str]:
    found = [
        f"{section}.{field.name}"
        for section, kind in SECTIONS.items()
        for field in declared(kind)
        if isinstance(field.mark, (Live, Members))
    ]
    return [key for key in found if key not in NODES]


@pytest.mark.parametrize("key", live_keys())
def test_a_live_key_has_a_test_of_its_effect(key: str) -> None:
    for room in ROOMS:
        import_module(room)
    assert SHOWN.get(key), f"no test is marked with effect_of({key!r})"


def test_the_tests_name_keys_that_exist() -> None:
    for room in ROOMS:
        import_module(room)
    known = {*live_keys(), "console", "fleet", "inbox", "pools", "pools.prefix", "pools.edges.weight"}
    assert set(SHOWN) - known == set()


# Other values for keys that are neither switches nor numbers, and what lists of named things get.
OTHER: dict[tuple[type, str], object] = {
    (Access, "refusal"): 0x80,
    (Access, "on_refusal"): terms.DISCONNECT,
    (Access, "roles"): (RoleSpec(name="new", publish=(), subscribe=()),),
    (BackendRule, "users"): (BackendUser(user="new", password=SecretText(text="right")),),
    (BackendRule, "when_full"): terms.REJECT,
    (BackendUser, "password"): SecretText(text="other"),
    (CoreSpec, "redirect"): "other.example",
    (DeadLettersSpec, "when_full"): terms.REJECT,
    (FrontDoorSpec, "redirect"): "other.example",
    (IdentityRule, "source"): "client_id",
    (IdentityRule, "pattern"): "[a-z]{1,32}",
    (IdentityRule, "default"): "V0",
    (IdentityRule, "client_ids"): ("{vehicle}",),
    (IdentityRule, "providers"): (ProviderSpec(name="cert", certificate="dns"),),
    (BackendRule, "providers"): (ProviderSpec(name="cert", certificate="dns", template="{user}"),),
    (ListenerSpec, "identify"): ("anonymous",),
    (ListenerSpec, "proxy"): ("10.0.0.0/8",),
    (ListenerSpec, "headers"): (HeaderRule("x-fleet", "blue"),),
    (ProviderSpec, "certificate"): "uri",
    (ProviderSpec, "template"): "V-{vehicle}",
    (ProviderSpec, "jwt"): JwtSpec(keys="http://127.0.0.1:1/", issuer=("one",), algorithms=("ES256",)),
    (ProviderSpec, "http"): HttpSpec(url="http://127.0.0.1:1/"),
    (JwtSpec, "keys"): "http://127.0.0.1:1/other",
    (JwtSpec, "algorithms"): ("RS256",),
    (JwtSpec, "identity"): "vin",
    (JwtSpec, "roles"): "roles",
    (HttpSpec, "url"): "http://127.0.0.1:1/other",
    (HttpSpec, "on_failure"): "next",
    (HttpSpec, "headers"): (HeaderSpec("X-Other", SecretText(text="secret")),),
    (InboxSpec, "qos"): 0,
    (InboxSpec, "when_full"): terms.DROP_OLDEST,
    (LogsSpec, "level"): "debug",
    (LogsSpec, "nodes"): {"door": "debug"},
    (LogsSpec, "modules"): {"mesh.broker": "debug"},
    (PoolSpec, "prefix"): "V",
    (PoolSpec, "edges"): (EdgeSpec(name="edge-8"),),
    (TelemetrySpec, "otlp"): "http://127.0.0.1:4318",
    (TelemetrySpec, "prometheus"): Address("127.0.0.1", 0),
    (TelemetrySpec, "sample"): 0.5,
    (Topology, "bind"): "127.0.0.2",
    (Topology, "console"): Address("127.0.0.1", 0),
    (Topology, "cores"): (CoreSpec(name="more", listen=(ListenerSpec(kind="mqtt", address=Address("127.0.0.1", 0)),)),),
    (Topology, "front_doors"): (
        FrontDoorSpec(name="other", listen=(ListenerSpec(kind="mqtt", address=Address("127.0.0.1", 0)),)),
    ),
    (Topology, "inbox"): None,
    (Topology, "pools"): (PoolSpec(name="vans", prefix="VAN", edges=(EdgeSpec(name="edge-9"),)),),
}


Files = dict[str, Path]
"""Files for keys that name one."""


def variants(owner: Any, files: Files) -> Iterator[tuple[str, Any]]:
    """``owner`` with another value of one key that a running mesh takes, in it or below it, with the key's path."""
    for item in declared(type(owner)):
        value = getattr(owner, item.name)
        for below, other in others(owner, item, value, files):
            yield f"{item.path}{below}", replace(owner, **{item.name: other})


def others(owner: Any, item: Declared, value: Any, files: Files) -> Iterator[tuple[str, Any]]:
    mark = item.mark
    if isinstance(mark, (Refused, Key)):
        return
    if isinstance(mark, Parts) and value is not None:
        for path, other in variants(value, files):
            yield f".{path}", other
    if isinstance(mark, Parts) and (mark.whole is None or isinstance(mark.whole, Refused)):
        return
    if isinstance(mark, Members) and isinstance(value, tuple) and value and is_dataclass(value[0]):
        for index, one in enumerate(value):
            for path, other in variants(one, files):
                yield f"[{index}].{path}", (*value[:index], other, *value[index + 1 :])
    yield "", files.get(item.name) or another(owner, item, value)


def another(owner: Any, item: Declared, value: Any) -> object:
    if item.name == "listen":
        return (ListenerSpec(kind="mqtt", address=Address("127.0.0.1", free_port())),)
    if (type(owner), item.name) in OTHER:
        other = OTHER[type(owner), item.name]
        return (*value, *other) if isinstance(other, tuple) and isinstance(value, tuple) else other
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        most = next(field.metadata.get("most", 1e12) for field in fields(owner) if field.name == item.name)
        return value + 1 if value + 1 <= most else value - 1
    if isinstance(value, tuple):
        return (*value, "common/#")
    if isinstance(value, dict):
        return {**value, "gpu": 1.0}
    raise AssertionError(f"{type(owner).__name__}.{item.name} needs a value in OTHER")


# What a preparation may raise already, as other nodes may take the change first.
BOUNDS = {"max_packet_size", "max_connect_size", "max_topic_levels", "topic_aliases"}


def same(old: Any, new: Any) -> bool:
    """Whether the same is in force, but for ``BOUNDS``."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(key in BOUNDS or same(old[key], new[key]) for key in old)
    return bool(old == new)


def test_each_node_takes_a_change_of_each_key_that_a_running_mesh_takes(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("scram", "passwords", "ca")}
    for name in ("scram", "passwords"):
        files[name].touch(mode=0o600)
    trustme.CA().cert_pem.write_to_path(files["ca"])
    identity = (
        '{pattern: "[A-Z0-9-]{1,32}", providers: ['
        "{name: tokens, jwt: {keys: 'http://127.0.0.1:1/keys', issuer: one, audience: mesh, algorithms: [ES256]}}, "
        "{name: ours, http: {url: 'http://127.0.0.1:1/', headers: {X-Token: secret}}}, anonymous]}"
    )

    async def main(mesh: Nodes) -> None:
        nodes: dict[str, Any] = {"edge-1": mesh.edge, "core": mesh.core, "door": mesh.door}
        before, seen = mesh.topology, list[str]()
        for path, topology in variants(before, files):
            found = changes(before, topology)
            assert found, path
            if path in ("front_doors[0].listen", "cores[0].listen"):
                assert len(found) == 2, "one is added, and one removed"
            # Whether an edge or core may go depends on what it owns, which a node does not know.
            assert all(change.kind is not Kind.REFUSED for change in found), path
            seen.append(path)
            mesh.topology = topology
            for name, node in nodes.items():
                was = node.in_force()
                prepared = await node.prepare(mesh.config(name))
                assert same(was, node.in_force()), f"{name} takes {path} before it is in force"
                prepared.withdraw()
                assert same(was, node.in_force()), f"{name} takes {path}, which was withdrawn"
        assert len(seen) == len(set(seen))
        some = {"limits.memory", "identity.providers[0].scram", "front_doors[0].listen", "pools[0].edges[0].weight"}
        some |= {"identity.providers[0].jwt.algorithms", "identity.providers[1].http.headers"}
        assert some <= set(seen)

    with_nodes(etcd, main, 'inbox: {subscribe: ["vehicles/{vehicle}/cmd"]}\n', identity=identity)
