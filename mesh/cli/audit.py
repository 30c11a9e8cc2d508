"""``mesh audit``: shows what operators have changed in a running mesh."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from mesh.cli.guarded import asked
from mesh.cli.which import file_of, option
from mesh.registry.audit import KEPT, Act, AuditLog
from mesh.registry.client import EtcdClient

EXAMPLES: Final = f"""\
examples:
  mesh audit                                 who changed what, when, and with which command; newest first
  mesh audit --json | jq '.[] | select(.command == "mesh kick")'

It has the last {KEPT} starts and stops, bans, kicks, changes of the settings, of the levels of logs and of the secret
of the mesh, replayed and purged dead letters, salvaged journals, and changes of 'mesh passwd' and 'mesh certs' to files
that a mesh on the same machine uses; not those of files that were edited. 'mesh certs audit' shows those of a folder of
certificates. It has no secrets. It is a record for operators who work together: one who can write to etcd can change
it.

exit codes: 0 done, 1 etcd, which keeps it, did not answer, 3 no such mesh runs
"""


def options(parser: argparse.ArgumentParser) -> None:
    option(parser, place=True)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    async def read(client: EtcdClient, mesh: str) -> list[Act]:
        return await AuditLog(client, mesh).acts()

    acts = asked(file_of(arguments), read)
    if arguments.json:
        print(json.dumps([asdict(act) for act in acts], indent=2))
    else:
        print(lines(acts))
    return 0


def lines(acts: Sequence[Act]) -> str:
    """A line for each act."""
    return "\n".join(_line(act) for act in acts) or "nothing was changed yet"


def _line(act: Act) -> str:
    """Without control characters, which would change the terminal."""
    when = datetime.fromtimestamp(act.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = f"{when}  {act.by}@{act.host}  {act.command}: {act.what}"
    return "".join([one if one.isprintable() else repr(one)[1:-1] for one in text])
