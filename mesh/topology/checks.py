"""Checks across sections: names are unique, each address is used once, every vehicle has at most one pool.

It knows which nodes may be on the same machine: all of them without a Ray cluster; on a cluster those that do not ask
for different resources.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Mapping as Amounts
from importlib.util import find_spec
from typing import Final, NamedTuple, final
from urllib.parse import urlsplit

from mesh.policy.pattern import Pattern
from mesh.topology import descriptors
from mesh.topology.fields import Table
from mesh.topology.nodes import CONSOLE, CONTROLLER, RESERVED, metrics_addresses, nodes, replica_names
from mesh.topology.topology import AUTO, HOLD, LOCAL, CoreSpec, FrontDoorSpec, Topology
from mesh.topology.tree import Mapping, Node, Sequence
from mesh.topology.units import Address, is_loopback, near

LETTER: Final = 1024  # bytes that a dead letter counts besides its packet
_LAST_PORT: Final = 65_535
_USUAL: Final = range(9464, 10_000)  # the usual ports of Prometheus exporters


def run(top: Table, topology: Topology) -> None:
    """Note every mistake of the topology as a whole. ``top`` is its file."""
    _names(top, topology)
    _pools(top, topology)
    _users(top, topology)
    _providers(top, topology)
    _roles(top, topology)
    _watched(top, topology)
    _logs(top, topology)
    _dead_letters(top, topology)
    _etcd(top, topology)
    _cores(top, topology)
    _addresses(top, topology)
    _connections(top, topology)


def _find(node: Node, *path: str | int) -> Node:
    """The node at a path below ``node``, or the last one on the way that exists."""
    for step in path:
        found: Node | None = None
        if isinstance(step, int) and isinstance(node, Sequence) and step < len(node.items):
            found = node.items[step]
        elif isinstance(step, str) and isinstance(node, Mapping):
            found = next((value for key, value in node.entries if key.text == step), None)
        if found is None:
            break
        node = found
    return node


def _key(*path: str | int) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _note(top: Table, what: str, *path: str | int) -> None:
    top.notes.add(_find(top.node, *path), _key(*path), what)


def _groups(topology: Topology) -> Iterator[tuple[FrontDoorSpec | CoreSpec, str, int]]:
    for index, door in enumerate(topology.front_doors):
        yield door, "front_doors", index
    for index, core in enumerate(topology.cores):
        yield core, "cores", index


def _names(top: Table, topology: Topology) -> None:
    """The names of nodes are unique, and so are the names of pools."""
    seen: dict[str, str] = {}

    def claim(name: str, *path: str | int) -> None:
        if not name:
            return  # noted already
        if name in RESERVED:
            _note(top, f"the name {name!r} is reserved for the mesh itself; choose another", *path)
        elif name in seen:
            _note(top, f"the name {name!r} is taken by {seen[name]}; choose another", *path)
        else:
            seen[name] = _key(*path)

    for group, section, index in _groups(topology):
        for name in replica_names(group) if group.name else []:
            claim(name, section, index, "name")
    pools: dict[str, int] = {}
    for index, pool in enumerate(topology.pools):
        if pool.name and pools.setdefault(pool.name, index) != index:
            _note(
                top,
                f"the name {pool.name!r} is taken by pools[{pools[pool.name]}]; choose another",
                "pools",
                index,
                "name",
            )
        for number, edge in enumerate(pool.edges):
            claim(edge.name, "pools", index, "edges", number, "name")


def _pools(top: Table, topology: Topology) -> None:
    """No two pools take the same vehicles, and every pool has an edge for new ones."""
    prefixes: dict[str, str] = {}
    for index, pool in enumerate(topology.pools):
        if pool.prefix in prefixes:
            what = (
                f"the identities that begin with {pool.prefix!r}"
                if pool.prefix
                else "all other vehicles (it has no match)"
            )
            other = prefixes[pool.prefix]
            _note(
                top,
                f"the pool {pool.name!r} takes {what}, and so does {other!r}; give them different match prefixes",
                "pools",
                index,
            )
        else:
            prefixes[pool.prefix] = pool.name
        if pool.edges and not any(edge.weight for edge in pool.edges):
            _note(
                top,
                f"every edge of the pool {pool.name!r} has weight 0, so it takes no vehicle; give one a weight above 0",
                "pools",
                index,
                "edges",
            )


def _users(top: Table, topology: Topology) -> None:
    seen: set[str] = set()
    for index, user in enumerate(topology.backends.users):
        if user.user and user.user in seen:
            _note(top, f"duplicate user {user.user!r}; remove one", "backends", "users", index, "user")
        seen.add(user.user)


def _connections(top: Table, topology: Topology) -> None:
    """On this machine a node can have as many clients as the topology asks for. Other machines check that themselves,
    when their nodes start."""
    if topology.ray != LOCAL or topology.limits.connections == AUTO:
        return
    try:
        descriptors.connections(topology, descriptors.openable())
    except ValueError as error:
        _note(top, str(error), "limits", "connections")


def _dead_letters(top: Table, topology: Topology) -> None:
    """A share is part of the whole, each message fits it, and nothing that has expired must wait for room."""
    letters, largest = topology.dead_letters, topology.limits.max_packet_size + LETTER
    if letters.share > letters.bytes:
        what = f"a share of {letters.share} bytes is more than dead_letters.bytes ({letters.bytes}); write less"
        _note(top, what, "dead_letters", "share")
    if letters.share < largest:
        what = f"the largest packet (limits.max_packet_size) does not fit; write {largest}B or more"
        _note(top, what, "dead_letters", "share")
    if letters.expired and letters.when_full == HOLD:
        what = "an expired message cannot wait for room; write when_full: drop_oldest, or expired: false"
        _note(top, what, "dead_letters", "expired")


def _providers(top: Table, topology: Topology) -> None:
    """A listener asks providers that there are. It must have a port of its own: a chain belongs to an address."""
    vehicles = tuple(spec.name for spec in topology.identity.providers)
    places: tuple[tuple[str, tuple[FrontDoorSpec | CoreSpec, ...], tuple[str, ...]], ...] = (
        ("front_doors", topology.front_doors, vehicles),
        ("cores", topology.cores, topology.backends.names()),
    )
    for key, groups, known in places:
        for number, group in enumerate(groups):
            for place, listener in enumerate(group.listen):
                path = (key, number, "listen", place, "identify")
                for index, name in enumerate(listener.identify):
                    if name not in known:
                        what = f"there is no provider {name!r} here; the providers are {', '.join(known)}"
                        _note(top, what, *path, index)
                if listener.identify and listener.address.port == 0:
                    _note(top, "a listener with port 0 asks all providers; write a port, or remove identify", *path)


def _roles(top: Table, topology: Topology) -> None:
    """Each role that is given is one of ``access.roles``."""
    known = tuple(role.name for role in topology.access.roles)
    places: list[tuple[tuple[str | int, ...], tuple[str, ...]]] = [
        (("identity", "providers", index), spec.roles) for index, spec in enumerate(topology.identity.providers)
    ]
    places += [(("backends", "providers", at), spec.roles) for at, spec in enumerate(topology.backends.providers)]
    places += [(("backends", "users", at), user.roles) for at, user in enumerate(topology.backends.users)]
    for path, roles in places:
        for index, role in enumerate(roles):
            if role not in known:
                right = f"the roles are {', '.join(known)}" if known else "there are none; write them in access.roles"
                _note(top, f"there is no role {role!r}; {right}{near(role, known)}", *path, "roles", index)


def _watched(top: Table, topology: Topology) -> None:
    """Only a vehicle can be watched."""
    pattern = Pattern(topology.identity.pattern)
    for index, vehicle in enumerate(topology.telemetry.watch):
        if not pattern.matches(vehicle):
            what = f"{vehicle!r} is no vehicle: it does not match identity.pattern, {pattern.text}; write one that does"
            _note(top, what, "telemetry", "watch", index)


def _logs(top: Table, topology: Topology) -> None:
    """A level is of a process that follows the settings, or of a module that has a logger."""
    known = logged(topology)
    for name in topology.logs.nodes:
        if name not in known:
            _note(top, f"there is no node {name!r}; the nodes are {', '.join(known)}", "logs", "nodes", name)
    for name in topology.logs.modules:
        if not is_module(name):
            what = f"{name!r} is no module of the mesh; write one, such as mesh.broker or mesh.broker.dispatcher"
            _note(top, what, "logs", "modules", name)


def logged(topology: Topology) -> list[str]:
    """The processes whose level of the log can be set: those that follow the settings."""
    console = [] if topology.console is None else [CONSOLE]
    return [*(node.name for node in nodes(topology)), CONTROLLER, *console]


def is_module(name: str) -> bool:
    """Whether loggers of the mesh have this name, or names below it."""
    if not re.fullmatch(r"mesh(\.[a-z_0-9]+)+", name):
        return False
    try:
        return find_spec(name) is not None  # it imports the packages above the module only
    except ModuleNotFoundError:
        return False


def _etcd(top: Table, topology: Topology) -> None:
    """The nodes of a Ray cluster may be on any of its machines, and must all reach etcd."""
    if topology.ray != LOCAL and topology.etcd.embedded:
        what = (
            "the embedded etcd is reached from its own machine only, and a Ray cluster may have more; "
            "write the servers of an etcd, such as etcd: [http://etcd-1:2379], or ray: local"
        )
        _note(top, what, "etcd" if top.has("etcd") else "ray")


def _cores(top: Table, topology: Topology) -> None:
    """Cores of one machine do not share a port: a back end that connects again would come to another core."""
    if topology.ray != LOCAL:
        return
    for index, core in enumerate(topology.cores):
        shared = [str(listener.address) for listener in core.listen if listener.address.port]
        if core.replicas > 1 and shared:
            what = (
                f"{core.replicas} cores on one machine cannot share {', '.join(shared)}: the session of a back end "
                "belongs to one core; write an entry for each core, with a name and a port of its own"
            )
            _note(top, what, "cores", index, "replicas")


def _asked(resources: Amounts[str, float]) -> frozenset[str]:
    """The resources that a node really asks for: an amount of 0 is to be had on every machine."""
    return frozenset(name for name, amount in resources.items() if amount > 0)


@final
class Used(NamedTuple):
    """An address that a part of the mesh listens on: the part's place in the file, and the resources that it asks
    for."""

    address: Address
    place: str
    asked: frozenset[str]

    def clashes(self, address: Address, asked: frozenset[str], cluster: bool) -> bool:
        """Whether a part that asks for these resources cannot listen on ``address``. On a cluster two parts that ask
        for different resources are taken to be on different machines."""
        apart = cluster and asked and self.asked and asked.isdisjoint(self.asked)
        return not apart and self.address.clashes(address)


def _addresses(top: Table, topology: Topology) -> None:
    """Each address of a machine has one listener; the replicas of one door or core share it."""
    cluster = topology.ray != LOCAL
    used = [] if cluster else _servers(top, topology)

    def claim(address: Address | None, resources: Amounts[str, float], *path: str | int) -> None:
        if address is None:
            return
        asked = _asked(resources)
        for other in used:
            if other.clashes(address, asked, cluster):
                what = f"{address} is already used by {other.place} ({other.address}); choose another port"
                if cluster:
                    what += ", or keep the two on different machines by different resources"
                _note(top, what, *path)
                return
        used.append(Used(address, _key(*path), asked))

    for group, section, index in _groups(topology):
        for number, listener in enumerate(group.listen):
            claim(listener.address, group.resources, section, index, "listen", number, listener.kind)
    claim(topology.console, {}, "console")
    _metrics(top, topology, used)


def _servers(top: Table, topology: Topology) -> list[Used]:
    """The etcd servers on this machine, by their names."""
    place = "etcd" if isinstance(top.node_of("etcd"), Sequence) else "etcd.endpoints"
    found = []
    for index, endpoint in enumerate(topology.etcd.endpoints):
        server = urlsplit(endpoint)
        if is_loopback(server.hostname or "") and server.port is not None:
            host = "127.0.0.1" if server.hostname == "localhost" else server.hostname or ""
            found.append(Used(Address(host, server.port), f"{place}[{index}]", frozenset()))
    return found


def _metrics(top: Table, topology: Topology, used: list[Used]) -> None:
    """``telemetry.prometheus`` gives the first of a range of ports, one for each node. The range must be free and end
    at or below the last port."""
    first = topology.telemetry.prometheus
    if first is None:
        return
    places = metrics_addresses(topology)
    asked = {node.name: _asked(node.resources) for node in nodes(topology)}
    cluster = topology.ray != LOCAL

    def wrong_with(places: dict[str, Address]) -> str:
        """The mistake in these addresses; empty if there is none."""
        for name, address in places.items():
            if address.port > _LAST_PORT:
                return f"{name!r} would have {address.port}, and the last port is {_LAST_PORT}"
            for other in used:
                if other.clashes(address, asked[name], cluster):
                    return f"{name!r} would have {address}, which {other.place} ({other.address}) uses"
        return ""

    wrong = wrong_with(places)
    if wrong:
        starts = range(first.port + 1, _LAST_PORT + 2 - len(places))
        free = next((port for port in (*starts, *_USUAL) if not wrong_with(_moved(places, port))), None)
        right = "choose another port" if free is None else f"choose {Address(first.host, free)}, for example"
        what = f"the metrics of {len(places)} nodes need {len(places)} ports from {first.port} on: {wrong}; {right}"
        _note(top, what, "telemetry", "prometheus")


def _moved(places: dict[str, Address], first: int) -> dict[str, Address]:
    """The same nodes with ports from ``first`` on."""
    return {name: Address(one.host, first + number) for number, (name, one) in enumerate(places.items())}
