"""Random topologies for hypothesis, and pairs of them that differ in some keys."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mesh.policy.secrettext import SecretText
from mesh.topology.load import loads
from mesh.topology.nodes import nodes
from mesh.topology.provider import IdentityRule, ProviderSpec
from mesh.topology.topology import (
    Access,
    AccessRule,
    BackendRule,
    BackendUser,
    CoreSpec,
    DeadLettersSpec,
    EdgeSpec,
    EtcdAuthSpec,
    EtcdSpec,
    EtcdTlsSpec,
    FrontDoorSpec,
    InboxSpec,
    InternalTlsSpec,
    LimitsSpec,
    ListenerSpec,
    LogsSpec,
    MapRule,
    PoolSpec,
    RoleSpec,
    TelemetrySpec,
    Topology,
)
from mesh.topology.units import Address

_BASE = loads(
    b"""\
mesh: demo
front_doors: [{name: door, listen: [{mqtt: "127.0.0.1:1883"}]}]
cores: [{name: core, listen: [{mqtt: "127.0.0.1:1884"}]}]
pools: [{name: standard, edges: [{name: edge-1}]}]
""",
    "mesh.yaml",
    Path("/srv/mesh"),
)
SECRETS = ("hush-1", "hush-2", "hush-3")

_secrets = st.builds(SecretText, text=st.sampled_from(SECRETS)) | st.builds(
    SecretText, file=st.sampled_from([Path("/secret"), Path("/other")])
) | st.builds(SecretText, env=st.sampled_from(["ONE", "OTHER"]))
_filters = st.lists(st.sampled_from(["a/#", "b/+", "c"]), max_size=2).map(tuple)
_addresses = st.builds(Address, st.sampled_from(["127.0.0.1", "::1"]), st.sampled_from([0, 1883, 1884]))
_resources = st.sampled_from([{}, {"a": 1.0}, {"a": 2.0, "b": 1.0}])
_listeners = st.lists(st.builds(ListenerSpec, kind=st.just("mqtt"), address=_addresses), min_size=1, max_size=3)
_few = st.integers(0, 3)


_limits = st.dictionaries(
    st.sampled_from([item.name for item in fields(LimitsSpec)]), st.integers(1, 3), max_size=3
).map(lambda values: LimitsSpec(**values))

_group = {
    "replicas": st.integers(1, 3),
    "listen": _listeners.map(tuple),
    "redirect": st.sampled_from(["", "other"]),
    "resources": _resources,
}


@st.composite
def _groups(draw: st.DrawFn, kind: type, names: tuple[str, ...]) -> tuple[Any, ...]:
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True))
    return tuple(draw(st.builds(kind, name=st.just(name), **_group)) for name in chosen)


@st.composite
def _pools(draw: st.DrawFn) -> tuple[PoolSpec, ...]:
    names = draw(st.lists(st.sampled_from(["east", "west", "north"]), min_size=1, max_size=3, unique=True))
    edges: dict[str, list[EdgeSpec]] = {name: [] for name in names}
    # "x-2" is the name of a replica in other topologies.
    for edge in draw(st.lists(st.sampled_from(["e1", "e2", "e3", "x-2"]), min_size=1, max_size=4, unique=True)):
        spec = EdgeSpec(name=edge, weight=draw(st.sampled_from([0, 100])), resources=draw(_resources))
        edges[draw(st.sampled_from(names))].append(spec)
    return tuple(
        PoolSpec(name=name, prefix=draw(st.sampled_from(["", "A", "B"])), edges=tuple(edges[name])) for name in names
    )


_inbox = st.none() | st.builds(
    InboxSpec, subscribe=_filters, qos=st.integers(0, 2), expiry=st.sampled_from([60.0, 3600.0]), max_messages=_few
)
_etcd = st.builds(
    EtcdSpec,
    endpoints=st.sampled_from([(), ("https://e:1",), ("https://e:1", "https://f:1")]),
    tls=st.none() | st.builds(EtcdTlsSpec, ca=st.sampled_from([None, Path("/ca"), Path("/other")])),
    auth=st.none() | st.builds(EtcdAuthSpec, user=st.sampled_from(["me", "you"]), password=_secrets),
)
_providers = st.lists(
    st.builds(
        ProviderSpec,
        name=st.sampled_from(["cert", "file"]),
        certificate=st.sampled_from(["dns", "uri"]),
        template=st.sampled_from(["{vehicle}", "V-{vehicle}"]),
        scram=st.sampled_from([None, Path("/scram")]),
    ),
    max_size=2,
    unique_by=lambda spec: spec.name,
).map(tuple)
_identity = st.builds(
    IdentityRule,
    source=st.sampled_from(["username", "client_id"]),
    pattern=st.sampled_from(["[A-Z]{1,9}", "[0-9]{1,9}"]),
    client_ids=st.sampled_from([(), ("{vehicle}",)]),
    set_username=st.booleans(),
    providers=_providers,
)
_users = st.lists(
    st.builds(BackendUser, user=st.sampled_from(["ann", "bob", "eve"]), password=_secrets),
    max_size=3,
    unique_by=lambda user: user.user,
)
_rule = st.builds(AccessRule, publish=_filters, subscribe=_filters, refuse=_filters, will=st.booleans())
_roles = st.lists(
    st.builds(RoleSpec, name=st.sampled_from(["a", "b"]), publish=_filters, subscribe=_filters, qos=st.integers(0, 2)),
    max_size=2,
    unique_by=lambda role: role.name,
).map(tuple)
_parts: dict[str, st.SearchStrategy[Any]] = {
    "internal": st.none()
    | st.builds(
        InternalTlsSpec, ca=st.sampled_from([Path("/ca"), Path("/other")]), cert=st.just(Path("/{node}.pem")),
        key=st.just(Path("/{node}.key")),
    ),
    "mesh": st.sampled_from(["demo", "other"]),
    "etcd": _etcd,
    "identity": _identity,
    "template": st.sampled_from(["vehicles/{vehicle}/#", "cars/{vehicle}/#"]),
    "fleet": _filters,
    "inbox": _inbox,
    "front_doors": _groups(FrontDoorSpec, ("door", "gate", "x")),
    "cores": _groups(CoreSpec, ("core", "heart", "x")),
    "pools": _pools(),
    "backends": st.builds(BackendRule, anonymous=st.booleans(), users=_users.map(tuple), providers=_providers),
    "access": st.builds(Access, vehicles=_rule, backends=_rule, roles=_roles, refusal=st.sampled_from([0x80, 0x87])),
    "dead_letters": st.builds(DeadLettersSpec, bytes=_few, age=st.sampled_from([1.0, 60.0]), expired=st.booleans()),
    "limits": _limits,
    "map": st.builds(MapRule, cache=st.sampled_from([1000, 2000])),
    "telemetry": st.builds(
        TelemetrySpec,
        otlp=st.sampled_from([None, "http://a:1"]),
        sample=st.sampled_from([0.0, 0.5]),
        watch=_filters,
        prometheus=st.none() | _addresses,
    ),
    "logs": st.builds(
        LogsSpec,
        level=st.sampled_from(["info", "debug"]),
        nodes=st.dictionaries(st.sampled_from(["edge-1", "controller"]), st.sampled_from(["debug", "error"])),
        modules=st.dictionaries(st.sampled_from(["mesh.broker", "mesh.core"]), st.just("debug")),
    ),
    "console": st.none() | _addresses,
    "data": st.sampled_from([Path("/srv/mesh"), Path("/srv/other")]),
    "ray": st.sampled_from(["local", "10.0.0.5:6379"]),
    "bind": st.sampled_from(["127.0.0.1", "127.0.0.2"]),
}
assert set(_parts) == {item.name for item in fields(Topology)}


def consistent(topology: Topology) -> bool:
    names = [spec.name for spec in nodes(topology)]
    return len(names) == len(set(names))


@st.composite
def topologies(draw: st.DrawFn, base: Topology = _BASE, most: int = len(_parts)) -> Topology:
    """``base`` with other values for at most so many of its keys."""
    keys = draw(st.lists(st.sampled_from(sorted(_parts)), max_size=most, unique=True))
    made = replace(base, **{key: draw(_parts[key]) for key in keys})
    return made if consistent(made) else base


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Topology, Topology]:
    """Two topologies: alike but for some keys, or of any kind."""
    old = draw(topologies())
    return old, draw(topologies(old, 3) | topologies())
