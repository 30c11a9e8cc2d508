"""``mesh kick``: ends the connections of a client of a running mesh, once; it may connect again."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
from dataclasses import asdict, dataclass
from secrets import token_hex
from typing import Final, final

from mesh.cli.guarded import asked
from mesh.cli.which import WrongLine, option
from mesh.cluster.known import members
from mesh.registry.audit import act, user
from mesh.registry.bans import CLIENT_ID, USER, VEHICLE, BanStore, Kick, normal
from mesh.registry.client import EtcdClient

EXAMPLES: Final = """\
examples:
  mesh kick CAR-7                        all connections of this vehicle
  mesh kick --client-id CAR-7-tablet     of clients with this client id: vehicles and back ends
  mesh kick --user fleet-app             of a back end

5.0 clients are told 0x98, others are closed. The will is published, as after any end that is not the client's wish; the
session stays. To keep a client out, use 'mesh ban'.

exit codes: 0 every front door and core has answered, 1 some have not, or etcd did not, 2 wrong command line, 3 no such
mesh runs
"""

_ROLES: Final = ("door", "core")
_ANSWERS: Final = 4.0  # seconds
_PAUSE: Final = 0.05


@final
@dataclass(frozen=True, slots=True)
class Kicked:
    """``ended``: connections by node; ``silent``: the nodes that have not answered."""

    ended: dict[str, int]
    silent: list[str]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("vehicle", metavar="VEHICLE", nargs="?", help="the vehicle's identity")
    parser.add_argument("--client-id", metavar="ID", help="clients with this client id instead")
    parser.add_argument("--user", metavar="NAME", help="the clients of this back end instead")
    parser.add_argument("--json", action="store_true", help="print JSON")
    option(parser)


def run(arguments: argparse.Namespace) -> int:
    given = {VEHICLE: arguments.vehicle, CLIENT_ID: arguments.client_id, USER: arguments.user}
    chosen = [(kind, value) for kind, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise WrongLine("write one of VEHICLE, --client-id ID and --user NAME")
    kind, value = chosen[0]
    try:
        kick = Kick(kind, normal(kind, value), f"{user()}@{socket.gethostname()}", token_hex(8))
    except ValueError as error:
        raise WrongLine(str(error)) from error
    done = asked(arguments.topology, lambda client, mesh: _kick(client, mesh, kick))
    ended = sum(done.ended.values())
    if arguments.json:
        print(json.dumps({"kind": kind, "value": value, "connections": ended, **asdict(done)}))
    else:
        print(f"{kick}: {ended} connection{'' if ended == 1 else 's'} ended")
        if done.silent:
            print(f"not known: {', '.join(done.silent)} did not answer", file=sys.stderr)
    return 1 if done.silent else 0


async def _kick(client: EtcdClient, mesh: str, kick: Kick) -> Kicked:
    store, loop = BanStore(client, mesh), asyncio.get_running_loop()
    nodes = {member.name for member in (await members(client, mesh)).values() if member.role in _ROLES}
    await store.kick(kick, act("mesh kick", str(kick)))
    deadline = loop.time() + _ANSWERS
    ended = await store.answers(kick)
    while not nodes <= ended.keys() and loop.time() < deadline:
        await asyncio.sleep(_PAUSE)
        ended = await store.answers(kick)
    return Kicked(ended, sorted(nodes - ended.keys()))
