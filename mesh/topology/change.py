"""The differences between two topologies, and what each does to a mesh: live, rolling or refused.

It knows topologies and the marks of their keys (``keys``). It must never know files, nodes that run, or etcd. What
always holds: equal topologies have no changes, and each difference has one, with the path that the file has for it;
no text contains a secret; the functions have no effects, so ``mesh plan`` and ``mesh up`` cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, final

from mesh.topology import effects
from mesh.topology.keys import Declared, Effect, Key, Live, Members, Parts, Rolling, declared
from mesh.topology.nodes import nodes, replica_names
from mesh.topology.shown import shown
from mesh.topology.topology import CoreSpec, EdgeSpec, FrontDoorSpec, ListenerSpec, Topology

ADDED: Final = "added"
REMOVED: Final = "removed"
CHANGED: Final = "changed"
REORDERED: Final = "in another order"


class Kind(StrEnum):
    LIVE = "live"
    ROLLING = "rolling"
    REFUSED = "refused"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change. ``path`` is as in the file, with names for the items of lists: ``pools.standard.edges.edge-2``.
    ``what``: ``1000 -> 2000``, ``added`` or ``removed``; ``changed`` for a secret. ``why``: the reason of a rolling or
    refused change, and what a live one means for that which exists already. ``instead``: of a refused one. ``nodes``:
    those that are added, removed or restarted."""

    path: str
    kind: Kind
    what: str
    why: str = ""
    instead: str = ""
    nodes: tuple[str, ...] = ()


def changes(
    old: Topology, new: Topology, owned: Mapping[str, int] | None = None, *, exact: bool = True, running: bool = True
) -> tuple[Change, ...]:
    """What changes from ``old`` to ``new``, in the order of the file.

    ``owned``: how many vehicles an edge owns, and how many sessions of back ends and messages for edges a core; of the
    nodes that ``new`` lacks. A node of which the number is not known is not removed. ``exact``: whether these are the
    numbers, or lower bounds. ``running``: without it the changes of a mesh that is down, which accepts more and
    restarts no node.
    """
    return tuple(_Comparison(old, new, owned or {}, exact, running).section(old, new, ""))


def restarted(old: Topology, new: Topology) -> frozenset[str]:
    """The nodes that the rolling changes restart."""
    rolling = (change for change in changes(old, new) if change.kind is Kind.ROLLING)
    return frozenset(node for change in rolling for node in change.nodes)


def orphans(topology: Topology, owned: Mapping[str, int], *, exact: bool = True) -> tuple[Change, ...]:
    """Why a mesh cannot start with this topology: it lacks edges that own vehicles. ``owned``: vehicles by edge, of the
    whole map."""
    present = {edge.name for edge in topology.edges()}
    lost = sorted(name for name, count in owned.items() if count and name not in present)
    return tuple(
        Change(
            path="pools",
            kind=Kind.REFUSED,
            what=f"no edge {name!r}",
            why=_owns(name, owned[name], effects.EDGES, exact),
            instead=f"add {name} to a pool with weight: 0, so that no new vehicle goes there",
            nodes=(name,),
        )
        for name in lost
    )


def stray(topology: Topology) -> Callable[[str, str], bool]:
    """Tells of a vehicle (first) and its edge (second) whether the vehicle stays against the rules of the pools: if it
    were new, it would get an edge of another pool, or none."""
    rules = sorted(
        ((pool.prefix, frozenset(edge.name for edge in pool.edges)) for pool in topology.pools),
        key=lambda rule: -len(rule[0]),
    )

    def is_stray(vehicle: str, edge: str) -> bool:
        edges = next((edges for prefix, edges in rules if vehicle.startswith(prefix)), frozenset[str]())
        return edge not in edges

    return is_stray


@final
class _Comparison:
    """The changes from one topology to another."""

    def __init__(self, old: Topology, new: Topology, owned: Mapping[str, int], exact: bool, running: bool) -> None:
        self._owned = owned
        self._exact = exact
        self._running = running
        self._before = {spec.name: spec.role for spec in nodes(old)}
        self._after = {spec.name: spec.role for spec in nodes(new)}
        self._old_edges = _edges(old)
        self._new_edges = _edges(new)

    def section(self, old: Any, new: Any, path: str, own: Iterable[str] | None = None) -> Iterator[Change]:
        """The changes of two instances of one dataclass. ``own``: the nodes that it is about; ``None``: all."""
        for item in declared(type(old)):
            before, after = getattr(old, item.name), getattr(new, item.name)
            place = f"{path}.{item.path}" if path else item.path
            mark = item.mark
            if isinstance(mark, Key):
                continue
            if isinstance(mark, Members):
                yield from self._members(item.name, place, mark, old, new)
            elif isinstance(mark, Parts):
                yield from self._parts(place, mark, before, after)
            elif before != after:
                yield self._change(place, mark, _difference(item, before, after), own)

    def _parts(self, place: str, mark: Parts, before: Any, after: Any) -> Iterator[Change]:
        if before is not None and after is not None:
            yield from self.section(before, after, place)
        elif before is not after:
            assert mark.whole is not None, f"{place} is no optional section"
            yield self._change(place, mark.whole, ADDED if before is None else REMOVED)

    def _change(self, path: str, mark: Effect, what: str, own: Iterable[str] | None = None) -> Change:
        if isinstance(mark, Live):
            return Change(path=path, kind=Kind.LIVE, what=what, why=mark.note)
        if isinstance(mark, Rolling):
            if not self._running:
                return Change(path=path, kind=Kind.LIVE, what=what)
            return Change(path=path, kind=Kind.ROLLING, what=what, why=mark.why, nodes=self._staying(mark, own))
        if mark.down and not self._running:
            return Change(path=path, kind=Kind.LIVE, what=what)
        return Change(path=path, kind=Kind.REFUSED, what=what, why=mark.why, instead=mark.instead)

    def _staying(self, mark: Rolling, own: Iterable[str] | None) -> tuple[str, ...]:
        """The nodes of ``own`` with the mark's roles that are in both topologies."""
        names = self._after if own is None else own
        return tuple(
            name for name in names if self._after[name] in mark.roles and self._before.get(name) == self._after[name]
        )

    # Things that come and go

    def _members(self, name: str, place: str, mark: Members, old: Any, new: Any) -> Iterator[Change]:
        before, after = getattr(old, name), getattr(new, name)
        if name == "listen":
            yield from self._listeners(place, mark, old, new)
        elif name == "replicas":
            yield from self._replicas(place, mark, old, new)
        elif name == "edges":
            yield from self._order(place, [edge.name for edge in before], [edge.name for edge in after])
        elif name == "pools":
            yield from self._named(place, mark, before, after)
            yield from self._pooled()
        else:
            yield from self._named(place, mark, before, after)

    def _named(self, place: str, mark: Members, old: Sequence[Any], new: Sequence[Any]) -> Iterator[Change]:
        """Things with names: front doors, cores, pools, users."""
        before = {getattr(item, mark.key): item for item in old}
        after = {getattr(item, mark.key): item for item in new}
        for name, item in after.items():
            path = f"{place}.{name}"
            if name in before:
                yield from self.section(before[name], item, path, _nodes_of(item))
            else:
                yield self._added(path, mark, ADDED, _nodes_of(item))
        for name, item in before.items():
            if name not in after:
                yield self._removed(f"{place}.{name}", mark, REMOVED, _nodes_of(item))
        yield from self._order(place, list(before), list(after))

    def _replicas(self, place: str, mark: Members, old: Any, new: Any) -> Iterator[Change]:
        before, after = _nodes_of(old), _nodes_of(new)
        what = f"{len(before)} -> {len(after)}"
        if len(after) > len(before):
            yield self._added(place, mark, what, after[len(before) :])
        elif len(after) < len(before):
            yield self._removed(place, mark, what, before[len(after) :])

    def _pooled(self) -> Iterator[Change]:
        """The edges of all pools, by their names: an edge may move from one pool to another."""
        before, after = self._old_edges, self._new_edges
        for name, (pool, edge) in after.items():
            path = f"pools.{pool}.edges.{name}"
            if name not in before:
                yield self._added(path, effects.EDGES, ADDED, (name,))
                continue
            left, other = before[name]
            if left != pool:
                yield self._change(path, effects.MOVED, f"moved from pool {left}", (name,))
            yield from self.section(other, edge, path, (name,))
        for name, (pool, _) in before.items():
            if name not in after:
                yield self._removed(f"pools.{pool}.edges.{name}", effects.EDGES, REMOVED, (name,))

    def _listeners(self, place: str, mark: Members, old: Any, new: Any) -> Iterator[Change]:
        before, after = _addresses(old), _addresses(new)
        for address, listener in after.items():
            if address not in before:
                yield self._change(place, mark.added, f"{address} {ADDED}")
            else:
                yield from self.section(before[address], listener, f"{place}.{address}")
        for address in before:
            if address not in after:
                yield self._change(place, mark.removed, f"{address} {REMOVED}")
        yield from self._order(place, list(before), list(after))

    def _order(self, place: str, before: list[str], after: list[str]) -> Iterator[Change]:
        """The order decides which node has which port for its metrics, and which line comes first."""
        if [name for name in before if name in after] != [name for name in after if name in before]:
            yield Change(path=place, kind=Kind.LIVE, what=REORDERED)

    def _added(self, path: str, mark: Members, what: str, names: tuple[str, ...]) -> Change:
        """A new node cannot have the name of one that runs: it would find a journal that is not its own."""
        taken = next((name for name in names if name in self._before), "")
        if taken:
            why = f"another {self._before[taken]} is named {taken}"
            return Change(path=path, kind=Kind.REFUSED, what=what, why=why, instead="choose another name", nodes=names)
        return Change(path=path, kind=Kind.LIVE, what=what, why=mark.added.note, nodes=names)

    def _removed(self, path: str, mark: Members, what: str, names: tuple[str, ...]) -> Change:
        left = [name for name in names if self._owned.get(name) != 0]
        if mark.owns and left:
            why = "; ".join(_owns(name, self._owned.get(name), mark, self._exact) for name in left)
            return Change(path=path, kind=Kind.REFUSED, what=what, why=why, instead=mark.instead, nodes=names)
        return Change(path=path, kind=Kind.LIVE, what=what, why=mark.removed.note, nodes=names)


def _owns(name: str, count: int | None, mark: Members, exact: bool) -> str:
    if count is None:
        return f"how many {mark.owns} {name} has is not known"
    return f"{name} has {'' if exact else 'at least '}{count} {mark.owns}"


def _nodes_of(item: object) -> tuple[str, ...]:
    """The names of the nodes of a front door or core; pools and users have none."""
    return tuple(replica_names(item)) if isinstance(item, (FrontDoorSpec, CoreSpec)) else ()


def _edges(topology: Topology) -> dict[str, tuple[str, EdgeSpec]]:
    """Each edge with the name of its pool, by its name."""
    return {edge.name: (pool.name, edge) for pool in topology.pools for edge in pool.edges}


def _addresses(group: FrontDoorSpec | CoreSpec) -> dict[str, ListenerSpec]:
    """The listeners. Several may have port 0: they differ by their numbers."""
    found: dict[str, ListenerSpec] = {}
    for listener in group.listen:
        text = f"{listener.kind}://{listener.address}{listener.path}"
        again = sum(1 for one in found if one.partition(" ")[0] == text)
        found[f"{text} ({again + 1})" if again else text] = listener
    return found


def _difference(item: Declared, before: object, after: object) -> str:
    if item.form.unit == "secret":
        return CHANGED
    return f"{shown(before, item.form)} -> {shown(after, item.form)}"
