"""``mesh log-level``: shows the levels of the logs, or changes them while the mesh serves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from mesh.cli.changed import show_changed, show_refusal
from mesh.cli.failed import Failed
from mesh.cli.lines import Waiting
from mesh.cli.which import WrongLine, option, reached_mesh
from mesh.cluster.find import Found
from mesh.cluster.present import amend, asked, endpoints_of
from mesh.cluster.revise import NOTHING_CHANGED, NotChanged
from mesh.cluster.revisions import topology_in
from mesh.registry.errors import RegistryError
from mesh.registry.settings import SettingsStore
from mesh.topology.checks import is_module, logged
from mesh.topology.topology import LEVELS, LogsSpec, Topology

DEFAULT: Final = "default"

EXAMPLES: Final = """\
examples:
  mesh log-level                             the levels in force
  mesh log-level debug                       of all nodes
  mesh log-level debug --node edge-1         of one node; --node may be repeated
  mesh log-level debug --module mesh.broker  of one module, on all nodes
  mesh log-level default --node edge-1       that of all nodes again

It makes a revision of the settings in which only the levels differ, as 'mesh up' makes one of a file. The next 'mesh up
FILE' goes back to what FILE says: section logs.

exit codes: 0 the levels were shown, or every node has confirmed the change, 1 nothing was changed, or the change is not
in force on every node, 2 wrong command line, or there is no such node or module, 3 no such mesh runs
"""


def options(parser: argparse.ArgumentParser) -> None:
    words = f"{', '.join(LEVELS)}, or {DEFAULT} to remove a level; without it, the levels are shown"
    parser.add_argument("level", metavar="LEVEL", nargs="?", choices=(*LEVELS, DEFAULT), help=words)
    parser.add_argument("--node", metavar="NAME", action="append", default=[], help="of this node only")
    parser.add_argument("--module", metavar="M", help="of this module, on all nodes, such as mesh.broker")
    option(parser)


def run(arguments: argparse.Namespace) -> int:
    level, names, module = arguments.level, arguments.node, arguments.module
    if names and module is not None:
        raise WrongLine("a module has one level on all nodes: give --node or --module, not both")
    if level is None and (names or module is not None):
        raise WrongLine(f"write a level, one of {', '.join((*LEVELS, DEFAULT))}, before --node and --module")
    if module is not None and not is_module(module):
        raise WrongLine(f"{module!r} is no module of the mesh; write one, such as mesh.broker")
    mesh = reached_mesh(arguments.topology)
    if level is None:
        return _show(mesh.topology, endpoints_of(mesh.topology, mesh.run))
    return _change(mesh.topology, Found(mesh.run, True, (), mesh.silent), level, names, module)


def _show(topology: Topology, endpoints: tuple[str, ...]) -> int:
    try:
        current = asked(topology, endpoints, lambda client: SettingsStore(client, topology.mesh).current())
        logs = (topology if current is None else topology_in(current)).logs
    except (RegistryError, OSError, ValueError) as error:
        print(f"the levels could not be read: {error}", file=sys.stderr)
        return 1
    rows = {"all nodes": logs.level, **logs.nodes, **logs.modules}
    wide = max(len(name) for name in rows)
    print("\n".join(f"{name:<{wide}}  {level}" for name, level in rows.items()))
    return 0


def _change(topology: Topology, found: Found, level: str, names: list[str], module: str | None) -> int:
    mesh = topology.mesh

    def edit(old: Topology) -> Topology:
        unknown = [name for name in names if name not in logged(old)]
        if unknown:
            raise _NoNode(f"mesh {mesh!r} has no node {unknown[0]!r}; it has {', '.join(logged(old))}")
        return replace(old, logs=changed(old.logs, level, names, module))

    try:
        done = amend(topology, edit, found, 0.0, Waiting(), "mesh log-level")
    except NotChanged as error:
        show_refusal(f"{NOTHING_CHANGED} in mesh {mesh!r}", error)
        return 1
    except (RegistryError, OSError, ValueError) as error:
        print(f"whether mesh {mesh!r} has changed is not known: {error}; 'mesh history' shows it", file=sys.stderr)
        return 1
    if done.changed is None:
        print(f"the levels in mesh {mesh!r} are so already ({done.source}); {NOTHING_CHANGED}")
        return 0
    code = show_changed(done, done.changed, mesh)
    print("the next 'mesh up FILE' goes back to the levels of FILE")
    return code


class _NoNode(Failed):
    """The mesh has no node of this name; one sentence."""

    code = WrongLine.code


def changed(logs: LogsSpec, level: str, names: list[str], module: str | None) -> LogsSpec:
    """The levels with one of them changed: that of nodes, of a module, or of all nodes."""
    if names:
        return replace(logs, nodes=_with(logs.nodes, names, level))
    if module is not None:
        return replace(logs, modules=_with(logs.modules, [module], level))
    return replace(logs, level=LogsSpec().level if level == DEFAULT else level)


def _with(levels: Mapping[str, str], names: list[str], level: str) -> dict[str, str]:
    left = {name: known for name, known in levels.items() if name not in names}
    return left if level == DEFAULT else {**left, **dict.fromkeys(names, level)}
