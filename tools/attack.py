"""Attack a mesh, and measure what a well-behaved vehicle and a well-behaved back end notice.

    ./scripts/attack --list
    ./scripts/attack deep_wildcards slow_byte       two attacks on a mesh of its own, at default limits
    ./scripts/attack --all --page                   all of them; writes the table of docs/security.md
    ./scripts/attack --all --topology mine.yaml     on that mesh, which 'mesh up' has started on this machine
    ./scripts/attack many_sessions --size 0.1       a tenth of the full attack

It attacks the installed package; with PYTHONPATH set to a checkout, its sources. Attack only a mesh without users:
an attack leaves messages and sessions of the vehicle 'attacker' behind. The attacks are in tests/attacks. The exit code
is 0 if nothing acknowledged was lost, no process ended, no well-behaved client was closed, and their round trips stayed
below 250 ms at the 99th percentile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

import mesh
import tools.checkout  # noqa: F401
from mesh.cli.which import which
from mesh.cluster.look import status_of
from mesh.topology.load import load
from mesh.topology.units import Address
from mesh.version import compiled
from tools import ROOT

# isort: split
from tests.attacks.attack import Target
from tests.attacks.catalogue import ATTACKS
from tests.attacks.cost import Pids
from tests.attacks.page import line, problems, write
from tests.attacks.runner import REST, Result, run

PAGE: Final = ROOT / "docs" / "security.md"


@contextmanager
def own_mesh() -> Iterator[tuple[Target, Pids]]:
    """See ``attacked``."""
    from tests.attacks.attacked import attacked

    with tempfile.TemporaryDirectory(prefix="mesh-attack-") as folder:
        group = Path(folder) / "attacked"
        group.mkdir()
        with attacked(group) as (running, target):
            yield target, lambda: {name: running.pid(name) for name in running.names()}


@contextmanager
def running_mesh(file: Path, vehicle: str) -> Iterator[tuple[Target, Pids]]:
    """The mesh of a topology file, which runs on this machine."""
    topology = load(file)

    def pids() -> dict[str, int]:
        return {row.name: row.pid for row in status_of(which(str(file))).nodes}

    door, core = topology.front_doors[0].listen[0].address, topology.cores[0].listen[0].address
    yield Target(reachable(door), reachable(core), vehicle), pids


def reachable(address: Address) -> tuple[str, int]:
    """Where a client on this machine connects."""
    return ("127.0.0.1" if address.host in ("0.0.0.0", "::") else address.host), address.port


def show(result: Result) -> None:
    """Print one result."""
    print(line(result).replace(" | ", "\n    ").strip("| "))
    for problem in problems(result):
        print(f"    FAILED: {problem}")
    print(flush=True)


def set_apart(pids: Pids) -> None:
    """Give the nodes the first processor, and this process the others. The bystanders inherit these."""
    first, *others = sorted(os.sched_getaffinity(0))
    for pid in pids().values():
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, {first})
    os.sched_setaffinity(0, others or {first})


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/attack", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="ATTACK", help="see --list")
    parser.add_argument("--list", action="store_true", help="name all attacks")
    parser.add_argument("--all", action="store_true", help="run all attacks")
    parser.add_argument("--size", type=float, default=1.0, help="the share of the full attack (default 1)")
    parser.add_argument("--topology", type=Path, help="attack this running mesh")
    parser.add_argument("--vehicle", default="attacker", help="the attacker's identity (default 'attacker')")
    parser.add_argument(
        "--rest", type=float, default=REST, help=f"seconds of round trips at rest, before and after (default {REST:g})"
    )
    parser.add_argument(
        "--apart", action="store_true", help="the nodes on the first processor, the attack on the others"
    )
    parser.add_argument("--json", type=Path, help="write the results to this file")
    parser.add_argument("--page", action="store_true", help="write the table of docs/security.md")
    options = parser.parse_args()
    if options.list:
        for name, kind in ATTACKS.items():
            print(f"{name:24}{kind.about}")
        return 0
    names = list(ATTACKS) if options.all else options.names
    unknown = [name for name in names if name not in ATTACKS]
    if unknown or not names or not 0 < options.size <= 1:
        what = "name attacks, or --all; the size is above 0 and at most 1"
        parser.error(f"unknown attack {unknown[0]!r}; see --list" if unknown else what)
    return attack(names, options)


def attack(names: list[str], options: argparse.Namespace) -> int:
    """Run the named attacks one after another; the exit code."""
    print(f"the {'compiled' if compiled() else 'pure'} package of {mesh.__path__[0]}\n", flush=True)
    results: list[Result] = []
    given: Path | None = options.topology
    with own_mesh() if given is None else running_mesh(given, options.vehicle) as (target, pids):
        if options.apart:
            set_apart(pids)
        for name in names:
            results.append(asyncio.run(run(ATTACKS[name], target, pids, options.size, options.rest)))
            show(results[-1])
    if options.json:
        options.json.write_text(json.dumps([result.as_dict() for result in results], indent=1), encoding="utf-8")
    if options.page:
        write(PAGE, results, ATTACKS)
    return 1 if any(problems(result) for result in results) else 0


if __name__ == "__main__":
    raise SystemExit(main())
