"""``mesh status``: shows the state of every node."""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, Literal

from mesh.cli.warned import show
from mesh.cli.which import NOT_RUNNING, Unclear, file_of, option, running_mesh, say
from mesh.cluster.known import known, unasked
from mesh.cluster.look import status_of
from mesh.cluster.raycalls import snapshot
from mesh.cluster.status import MeshStatus, NodeRow

EXAMPLES: Final = """\
examples:
  mesh status                        the only mesh that runs on this machine
  mesh status topology/local.yaml    that mesh
  mesh status --json | jq '.nodes[] | {name, host, state, age}'

The age is how long ago a node last said what its row says. After 10 s its state is "unreachable", and the row has what
was known last. A node that is "damaged" stays down: 'mesh journal verify NODE' says what is lost.

exit codes: 0 every node is ready, 1 some are not, 3 no such mesh runs
"""

_DEADLINE: Final = 9.0  # seconds, and one for the start of Python

_COLUMNS: Final = (
    "name", "role", "state", "host", "pid", "revision", "connections", "sessions", "queued", "restarts", "uptime",
    "age", "detail",
)  # fmt: skip
_NUMBERS: Final = frozenset({"pid", "revision", "connections", "sessions", "queued", "restarts", "uptime", "age"})
_WIDE: Final = 200  # columns, if the output is a file or a pipe
_COLOURS: Final = {"ready": "green", "failed": "red", "damaged": "red", "unreachable": "red"}


def options(parser: argparse.ArgumentParser) -> None:
    option(parser, place=True)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    try:
        status = _status(file_of(arguments))
    except Unclear as error:
        if arguments.json:
            print(json.dumps({"mesh": None, "state": "not running", "error": str(error), "nodes": []}))
        print(error, file=sys.stderr)
        return NOT_RUNNING
    except (OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    say(status.notes)
    show(status.warnings)
    print(status.to_json(indent=2)) if arguments.json else _show(status)
    return 0 if status.all_ready else 1


def _status(file: str | None) -> MeshStatus:
    """The status of a mesh, within the deadline. Raises ``Unclear``."""
    end = time.monotonic() + _DEADLINE
    mesh = running_mesh(file)
    question = unasked if mesh.silent else lambda topology: known(topology, mesh.run.endpoints)
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(question, mesh.topology)
        status = status_of(mesh.run, lambda run: snapshot(run, end - time.monotonic()), asked.result)
    return replace(status, notes=(*mesh.notes, *status.notes))


def _show(status: MeshStatus) -> None:
    from rich.console import Console  # here, as the import takes 100 ms and --json does not need it
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in _COLUMNS:
        side: Literal["left", "right"] = "right" if column in _NUMBERS else "left"
        table.add_column(column, justify=side, overflow="fold", no_wrap=column != "detail")
    for row in status.nodes:
        cells = [Text(cell) for cell in _cells(row)]
        cells[_COLUMNS.index("state")].stylize(_COLOURS.get(row.state, "yellow"))
        table.add_row(*cells)
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    revision = f" with revision {status.revision}" if status.revision else ""
    console.print(f"mesh {status.mesh!r} is {status.state}{revision}" + (f": {status.error}" if status.error else ""))
    console.print(table)


def _cells(row: NodeRow) -> tuple[str, ...]:
    """The cells of a row, in the order of the columns."""
    return (
        row.name,
        row.role,
        row.state,
        row.host or "-",
        str(row.pid or "-"),
        str(row.revision or "-"),
        str(row.connections),
        str(row.sessions),
        str(row.queued),
        str(row.restarts),
        _time(row.uptime) if row.uptime else "-",
        _time(row.age),
        row.detail or ", ".join(row.listen),
    )


def _time(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
