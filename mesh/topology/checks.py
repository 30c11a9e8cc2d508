"""What must hold between the sections: names are unique, an address is used once, every vehicle has one pool."""

from __future__ import annotations

from collections.abc import Iterator

from mesh.topology.fields import Table
from mesh.topology.nodes import RESERVED, replica_names
from mesh.topology.topology import Core, FrontDoor, Topology
from mesh.topology.tree import Mapping, Node, Sequence
from mesh.topology.units import Address


def run(top: Table, topology: Topology) -> None:
    """Note all that is wrong with the topology as a whole. ``top`` is the file it came from."""
    _names(top, topology)
    _pools(top, topology)
    _users(top, topology)
    _addresses(top, topology)


def _find(node: Node, *path: str | int) -> Node:
    """The node at a path below ``node``, or the nearest one that is there."""
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


def _groups(topology: Topology) -> Iterator[tuple[FrontDoor | Core, str, int]]:
    for index, door in enumerate(topology.front_doors):
        yield door, "front_doors", index
    for index, core in enumerate(topology.cores):
        yield core, "cores", index


def _names(top: Table, topology: Topology) -> None:
    """Every node has a name of its own, and so has every pool."""
    seen: dict[str, str] = {}

    def claim(name: str, *path: str | int) -> None:
        if not name:
            return  # noted already
        if name in RESERVED:
            _note(top, f"the mesh itself uses the name {name!r}; choose another", *path)
        elif name in seen:
            _note(top, f"the name {name!r} is taken by {seen[name]}; every node has a name of its own", *path)
        else:
            seen[name] = _key(*path)

    for group, section, index in _groups(topology):
        for name in replica_names(group) if group.name else []:
            claim(name, section, index, "name")
    pools: dict[str, int] = {}
    for index, pool in enumerate(topology.pools):
        if pool.name and pools.setdefault(pool.name, index) != index:
            _note(
                top, f"the name {pool.name!r} is taken by pools[{pools[pool.name]}]; rename one", "pools", index, "name"
            )
        for number, edge in enumerate(pool.edges):
            claim(edge.name, "pools", index, "edges", number, "name")


def _pools(top: Table, topology: Topology) -> None:
    """No two pools take the same vehicles, and some edge takes new ones."""
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
                f"every edge of the pool {pool.name!r} has weight 0, so it takes no vehicle",
                "pools",
                index,
                "edges",
            )


def _users(top: Table, topology: Topology) -> None:
    seen: set[str] = set()
    for index, user in enumerate(topology.backends.users):
        if user.user and user.user in seen:
            _note(top, f"the user {user.user!r} stands here twice; remove one", "backends", "users", index, "user")
        seen.add(user.user)


def _addresses(top: Table, topology: Topology) -> None:
    """Every address is listened on once; the replicas of one door or core share theirs."""
    used: list[tuple[Address, str]] = []

    def claim(address: Address | None, *path: str | int) -> None:
        if address is None:
            return
        for other, where in used:
            if address.clashes(other):
                _note(top, f"{address} is used by {where} ({other}) already; choose another port", *path)
                return
        used.append((address, _key(*path)))

    for group, section, index in _groups(topology):
        for number, listener in enumerate(group.listen):
            claim(listener.address, section, index, "listen", number, listener.kind)
    claim(topology.telemetry.prometheus, "telemetry", "prometheus")
    claim(topology.console, "console")
