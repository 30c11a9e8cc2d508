"""Makes docs/operate.md: what can be changed on a running mesh and how, from the declarations of the topology's keys.

    scripts/operate            writes the page
    scripts/operate --check    writes nothing; exit code 1 if the page is not current
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, get_args

from mesh.topology.effects import EDGES, MOVED
from mesh.topology.keys import Declared, Effect, Key, Live, Members, Parts, Role, Rolling, declared
from mesh.topology.topology import Topology
from tools import ROOT

PAGE = ROOT / "docs" / "operate.md"

HEAD = """\
# Changing a running mesh

This page is made from the declarations in the source by `scripts/operate`.

`mesh plan FILE` shows what differs between the file and the mesh, and what each change does; `mesh up FILE` does that,
and only that. A change is one of three kinds:

* **live**: every node takes it while it serves, within two seconds. No connection is closed that the table does not
  name. What a connection was told at CONNACK binds that connection: its packet size, aliases, keep alive, session
  expiry and the messages in flight.
* **rolling**: the nodes are restarted one after another, each when the last one is ready again. Edges and cores restart
  without closing the connection of a vehicle. A core's own back ends are told, as at each stop of a core, and connect
  again: their durable sessions keep everything. A front door sends its vehicles away one after another, some 100 in a
  second, within the time that `--over` gives.
* **refused**: `mesh up` changes nothing at all, also none of the other changes, and says what to do instead.

| command | what it does | exit code |
|---|---|---|
| `mesh plan FILE` | shows the differences; `--json` | 0 there are none, 5 there are, 6 one is refused, 1 the settings \
could not be compared |
| `mesh up FILE` | makes them all, or none; says who has confirmed them. Returns when added nodes are ready, and \
leaves restarts to the controller | 0 every node has confirmed, 1 nothing was changed, or a node has not confirmed |
| `mesh up FILE --wait` | also waits for the nodes that are restarted, and shows them | the same |
| `mesh up FILE --over 10m` | the time in which a front door that is restarted or removed sends its vehicles away | \
the same |
| `mesh history` | lists the revisions of the settings; `--json` | 0, 1 etcd could not be asked |
| `mesh up FILE --revision N` | goes back to revision N, as one more change | as `mesh up FILE` |
| `mesh log-level [LEVEL]` | shows the levels of the logs, or changes one of them, for all nodes, `--node NAME` or \
`--module M`; `default` removes it. The next `mesh up FILE` goes back to the section `logs` of FILE | as `mesh up \
FILE` |
| `mesh ban add KIND VALUE` | bans a vehicle, client id, address or network, certificate (serial number or SHA-256) or \
user, for ever or `--for 2h`, with a `--reason`; `mesh ban list`, `mesh ban remove KIND VALUE`; `--json` | 0, 1 etcd \
did not answer, 4 there is no such ban to remove |
| `mesh kick VEHICLE` | ends the connections of a vehicle once, or those with `--client-id ID` or of `--user NAME`; \
they may connect again | 0 all doors and cores have answered, 1 some have not |
| `mesh secret rotate FILE` | gives the nodes of a running mesh a new secret between them, in three steps; \
no connection is closed ([topology.md](topology.md#the-mesh-secret)) | 0 it is exchanged, 1 not yet: run it again |
| `mesh certs ACTION` | makes, renews and revokes certificates, and shows what expires \
([certificates.md](certificates.md)) | 0 done, 1 not, 4 `list --within`: something expires |
| `mesh audit` | lists the last 1,000 changes by operators, from starts to bans, settings and dead letters: who, on \
which machine, when, with which command; `--json` | 0, 1 etcd could not be asked |
| `mesh settings [NODE]` | asks the running nodes what their parts have in force | 0, 1 a node or etcd did not answer |
| `mesh status` | what each node follows, how old that is, what a node still has to be restarted for, and warnings | 0 \
all are ready, 1 not |

A second `mesh up` while nodes are restarted is told which. While etcd does not answer, the nodes keep the settings that
they have; `mesh plan` compares the file with those in the data folder and says so, and `mesh up` changes nothing.

A ban is in force on every front door and core within a second, and on each one that starts, also without etcd: nodes
keep the bans in their folder. Clients that it concerns are refused: 5.0 with 0x8A, before 5.0 with code 5. A banned
address is closed without an answer at listeners with TLS or WebSocket, before it costs a handshake. Those that
are connected are closed; 5.0 clients are told 0x98, since 0x8A is no code of DISCONNECT. A ban publishes no will, also
if the vehicle's edge is away meanwhile; the session stays as long as it would without a connection, and so do the
commands in its queue. `mesh kick` publishes the will, as MQTT has it for an end with 0x98. Behind a load balancer
addresses are those of the clients only with `proxy` ([topology.md](topology.md#proxy-protocol)).

A mesh that is down takes more: the values whose remedy below begins with `mesh down`. It still needs every edge that
owns vehicles: without one of them in its file it does not start. Passwords are compared and never shown.

| key | a change is | what it means |
|---|---|---|
"""

AT_ONCE = "at once"
NODES: dict[Role, str] = {"edge": "edges", "core": "cores", "door": "front doors"}


def page() -> str:
    """The text of the page."""
    return HEAD + "".join(_line(keys, effect) for keys, effect in _rows())


def _rows() -> Iterator[tuple[list[str], str]]:
    """The keys, in the order of the file, with what a change of them does. The keys of one section that have the same
    effect share a row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for path, effect in _effects(Topology, ""):
        section = re.split(r"[.:\[]", path)[0] if "." in path else path
        rows.setdefault((section, effect), []).append(path)
    for (_, effect), keys in rows.items():
        yield keys, effect


def _effects(kind: type, path: str) -> Iterator[tuple[str, str]]:
    """The paths of all keys of a section, each with two cells: the kind of its change, and what it means."""
    for item in declared(kind):
        place = f"{path}.{item.path}" if path else item.path
        if isinstance(item.mark, Parts):
            if item.mark.whole is not None:
                yield f"{place}: added or removed", _cells(item.mark.whole)
            yield from _effects(_section(item), place)
        elif isinstance(item.mark, Members):
            yield from _members(item, place)
        elif not isinstance(item.mark, Key):
            yield place, _cells(item.mark)


def _members(item: Declared, place: str) -> Iterator[tuple[str, str]]:
    mark = item.mark
    assert isinstance(mark, Members)
    more, fewer = ("more", "fewer") if item.name == "replicas" else ("added", "removed")
    yield f"{place}: {more}", _cells(mark.added)
    if mark.owns:
        yield f"{place}: {fewer}", f"live or refused | refused if it has {mark.owns}; {mark.instead}"
    else:
        yield f"{place}: {fewer}", _cells(mark.removed)
    if mark is EDGES:
        yield f"{place}: moved to another pool", _cells(MOVED)
    section = _section(item)
    if isinstance(section, type) and is_dataclass(section):
        yield from _effects(section, f"{place}[]")


def _section(item: Declared) -> Any:
    """The dataclass of a section, or of the items of a list."""
    options = get_args(item.kind)
    return options[0] if options else item.kind


def _cells(effect: Effect) -> str:
    if isinstance(effect, Live):
        return f"live | {effect.note or AT_ONCE}"
    if isinstance(effect, Rolling):
        restarted = "all nodes restart" if len(effect.roles) == len(NODES) else f"{NODES[effect.roles[0]]} restart"
        return f"rolling | {restarted}: {effect.why}"
    return f"refused | {effect.why}. Instead: {effect.instead}"


def _line(keys: list[str], effect: str) -> str:
    names = ", ".join(f"`{key}`{colon}{rest}" for key, colon, rest in (key.partition(": ") for key in keys))
    return f"| {names} | {effect} |\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="docs/operate.md from the declarations of the topology's keys")
    parser.add_argument("--check", action="store_true", help="fail if the page is not current")
    wanted = page()
    if not parser.parse_args().check:
        PAGE.write_text(wanted, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != wanted:
        print(f"{PAGE} is not current: run scripts/operate", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
