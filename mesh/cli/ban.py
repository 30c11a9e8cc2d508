"""``mesh ban``: bans clients of a running mesh, lifts bans, and lists them."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

from mesh.cli.guarded import asked, asked_of
from mesh.cli.which import WrongLine, option, reached_mesh
from mesh.policy.pattern import Pattern
from mesh.registry.audit import act, user
from mesh.registry.bans import FINGERPRINT, KINDS, LONGEST, SERIAL, VEHICLE, Ban, BanStore, normal, told
from mesh.registry.client import EtcdClient
from mesh.topology.topology import Topology
from mesh.topology.units import duration

NO_BAN: Final = 4

EXAMPLES: Final = """\
examples:
  mesh ban add vehicle CAR-7 --reason stolen        no client of this vehicle may connect; those that are connected end
  mesh ban add client-id CAR-7-tablet --for 2h      for two hours
  mesh ban add address 203.0.113.0/24               a network, or one address, IPv4 or IPv6
  mesh ban add serial 0a:1b:2c                      a client certificate, by its serial number, of any issuer
  mesh ban add fingerprint 3f…                      or by the SHA-256 of the certificate
  mesh ban add user fleet-app                       a back end
  mesh ban list --json | jq length
  mesh ban remove vehicle CAR-7

A ban is in force on every front door and core within a second, also on those that start later, and while etcd is away.
A client that connects is told 0x8A (3.1.1: code 5); one that is connected 0x98, as MQTT has 0x8A for CONNACK only. A
ban publishes no will, and leaves sessions and what is queued for them.
Behind a load balancer, ban addresses only if it sends them on (proxy: in the topology); if it ends TLS, it sends no
serial number or fingerprint, so ban the vehicle, or revoke the certificate at the load balancer.

exit codes: 0 done, 1 etcd did not answer, 2 wrong command line, 3 no such mesh runs, 4 remove: there is no such ban
"""

_LONGEST: Final = 36_500 * 86_400.0  # seconds: dates far beyond have no form, and etcd knows no such leases

_ACTIONS: Final = ("add", "list", "remove")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=_ACTIONS, help="what to do")
    kinds = tuple(kind.replace("_", "-") for kind in KINDS)
    parser.add_argument(
        "kind", metavar="KIND", nargs="?", choices=kinds, type=lambda text: text.replace("_", "-"),
        help=f"by what: {', '.join(kinds)}",
    )  # fmt: skip
    parser.add_argument("value", metavar="VALUE", nargs="?", help="the vehicle, client id, address, … to ban")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for other operators; no client sees it")
    parser.add_argument(
        "--for", metavar="TIME", dest="duration", type=_time, help="how long, such as 2h (default: ever)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    option(parser)


def _time(text: str) -> float:
    try:
        found = duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if found < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is too short: a ban lasts a second or more")
    if found > _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is too long: leave --for out, and the ban has no end")
    return found


def run(arguments: argparse.Namespace) -> int:
    action, seconds, reason = arguments.action, arguments.duration, arguments.reason
    if action != "add" and (seconds is not None or reason):
        raise WrongLine(f"--for and --reason are for 'mesh ban add', not for 'mesh ban {action}'")
    if action == "list":
        if arguments.kind is not None:
            raise WrongLine("'mesh ban list' shows all bans; it takes no kind")
        return _list(arguments)
    if arguments.kind is None or arguments.value is None:
        raise WrongLine(f"write what to {action}, such as: mesh ban {action} vehicle CAR-7")
    kind: str = arguments.kind.replace("-", "_")
    try:
        value = normal(kind, arguments.value)
    except ValueError as error:
        raise WrongLine(str(error)) from error
    if action == "remove":
        return _remove(arguments, kind, value)
    if len(reason.encode(errors="replace")) > LONGEST or not reason.isprintable():
        raise WrongLine(f"a reason has at most {LONGEST} bytes, in one line")
    since = time.time()
    expires = 0.0 if seconds is None else since + seconds
    return _add(arguments, Ban(kind, value, reason, f"{user()}@{socket.gethostname()}", since, expires))


def _add(arguments: argparse.Namespace, ban: Ban) -> int:
    what = f"{ban}, {_until(ban)}"

    async def add(client: EtcdClient, mesh: str) -> None:
        await BanStore(client, mesh).add(ban, act("mesh ban add", what))

    mesh = reached_mesh(arguments.topology)
    asked_of(mesh, add)
    print(json.dumps(asdict(ban)) if arguments.json else f"banned: {what}")
    for doubt in _doubts(mesh.topology, ban):
        print(doubt, file=sys.stderr)
    return 0


def _doubts(topology: Topology, ban: Ban) -> Iterator[str]:
    """Why a ban may not do what it is meant to."""
    identity = topology.identity
    if ban.kind == VEHICLE and not Pattern(identity.pattern).matches(ban.value):
        yield f"no vehicle has this name, as identity.pattern is {identity.pattern}: look for a slip"
    if ban.kind in (SERIAL, FINGERPRINT):
        listeners = [one for door in topology.front_doors for one in door.listen]
        listeners += [one for core in topology.cores for one in core.listen]
        blind = [str(one.listen()) for one in listeners if one.proxy and one.tls is None]
        if blind:
            yield (
                f"not at {', '.join(blind)}: a load balancer that ends TLS tells the name of a certificate only; ban "
                "the vehicle, or revoke the certificate there"
            )


def _remove(arguments: argparse.Namespace, kind: str, value: str) -> int:
    what = told(kind, value)

    async def remove(client: EtcdClient, mesh: str) -> bool:
        return await BanStore(client, mesh).remove(kind, value, act("mesh ban remove", what))

    removed = asked(arguments.topology, remove)
    if arguments.json:
        print(json.dumps({"kind": kind, "value": value, "removed": removed}))
    else:
        print(f"no longer banned: {what}" if removed else f"there is no ban of {what}")
    return 0 if removed else NO_BAN


def _list(arguments: argparse.Namespace) -> int:
    async def read(client: EtcdClient, mesh: str) -> list[Ban]:
        return await BanStore(client, mesh).bans()

    now = time.time()
    bans = [ban for ban in asked(arguments.topology, read) if not 0 < ban.expires <= now]
    if arguments.json:
        print(json.dumps([asdict(ban) for ban in bans], indent=2))
    else:
        print("\n".join(f"{ban}, {_until(ban)}, by {ban.by}, {_moment(ban.since)}" for ban in bans) or "no bans")
    return 0


def _until(ban: Ban) -> str:
    return f"until {_moment(ban.expires)}" if ban.expires else "for ever"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
