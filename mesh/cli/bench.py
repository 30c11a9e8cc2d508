"""``mesh bench``: puts a load on a running mesh and reports speed, losses and cost."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import Final

from mesh.bench.names import VehicleNames
from mesh.bench.peers import LEAST_PAYLOAD
from mesh.bench.plan import DIRECT, SCENARIOS, UP, LoadPlan
from mesh.bench.run import LoadFailed, Result, measure
from mesh.cli.client import ClientRefused, target
from mesh.cli.which import RunningMesh, option, reached_mesh
from mesh.cluster.look import status_of

EXAMPLES: Final = """\
examples:
  mesh bench                          one back end commands one vehicle, 100 messages unacknowledged
  mesh bench down-200x1               200 back ends command one vehicle each, one message unacknowledged
  mesh bench up-200x1 --rate 5000     200 vehicles send 5,000 reports per second in total: shows the latency
  mesh bench down-1x100 --json | jq .rate

The vehicles are named bench-0000000 and so on, or as the topology's pattern for names allows, and keep their edges in
the map. Only messages that arrived are counted; a latency starts when the message was due. The load runs on this
machine and uses its processors, too.

exit codes: 0 no loss, 1 a message or a connection was lost, or the load failed, 3 no such mesh runs
"""


def options(parser: argparse.ArgumentParser) -> None:
    named = [name for name, plan in SCENARIOS.items() if plan.pairs]
    parser.add_argument("scenario", nargs="?", choices=named, default=named[0], metavar="SCENARIO",
                        help=f"{', '.join(named)} (default {named[0]})")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of the measurement (default 5)")
    parser.add_argument("--rate", type=int, default=0, help="messages/s (default: as many as are acknowledged)")
    parser.add_argument("-q", "--qos", type=int, choices=(0, 1, 2), default=1, help="quality of service (default 1)")
    parser.add_argument("--size", type=_size, default=200, help="bytes of payload, 16 or more (default 200)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    option(parser)


def _size(text: str) -> int:
    size = int(text)
    if size < LEAST_PAYLOAD:
        raise argparse.ArgumentTypeError(f"must be {LEAST_PAYLOAD} or more: the payload has a time and a number")
    return size


def run(arguments: argparse.Namespace) -> int:
    plan = SCENARIOS[arguments.scenario]
    plan = replace(plan, rate=arguments.rate, qos=arguments.qos, size=arguments.size)
    if plan.rate:
        plan = replace(plan, window=_WINDOW)
    try:
        result = _measure(reached_mesh(arguments.topology), plan, arguments.seconds)
    except (LoadFailed, ClientRefused, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(result.plain())) if arguments.json else _show(plan, result)
    return 1 if result.lost or result.lost_connections else 0


_WINDOW: Final = 1000  # with a rate, the rate limits the messages in flight


def _measure(found: RunningMesh, plan: LoadPlan, seconds: float) -> Result:
    topology = found.topology
    plan = replace(plan, names=topology.identity.pattern)
    names = VehicleNames(plan.names)
    names.name_of(max(plan.pairs, plan.fan_out, plan.idle) - 1)  # is there a name for the last one?
    vehicles = target(topology, names.name_of(0), None, None, "bench")
    backends = target(topology, None, None, None, "bench")
    watched = {row.name: row.pid for row in status_of(found.run).nodes if row.role in ("edge", "core", "door")}
    return measure(
        plan, (vehicles.host, vehicles.port), (backends.host, backends.port), watched, seconds=seconds, warm_up=1.0
    )


def _show(plan: LoadPlan, result: Result) -> None:
    way = {UP: "vehicles report to back ends", DIRECT: "back ends to back ends"}.get(
        plan.direction, "back ends command vehicles"
    )
    print(f"{plan.name}: {way}, QoS {plan.qos}, {plan.size} bytes, {result.seconds:.1f} s")
    print(f"  {result.rate:,.0f} messages per second arrived")
    print(f"  {result.sent:,} were sent in total; {result.lost:,} were acknowledged and lost")
    if result.overdue:
        print(f"  {result.overdue:,} were due and not sent: the rate is higher than this mesh acknowledges")
    times = f"median {result.p50:.2f}, p99 {result.p99:.2f}, p99.9 {result.p999:.2f}, maximum {result.greatest:.2f}"
    print(f"  latency in ms: {times}")
    each = ", ".join(f"{name} {used:.1f}" for name, used in result.cpu.items())
    print(f"  processor time per message: {result.cpu_total:.1f} us ({each})")
    print(f"  the load itself used {result.load_cpu:.0%} of a processor")
