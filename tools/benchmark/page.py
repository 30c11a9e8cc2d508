"""Makes docs/benchmarks.md from the JSON of a comparison. No figure on that page is written by hand."""

from __future__ import annotations

import statistics
from typing import Any

HEAD = """\
# Benchmarks

Our mesh, with its journals synced to disk, compared with the C mesh: HAProxy (sticky by client id) before a Mosquitto
as edge, with a bridge to a Mosquitto as core. The C mesh syncs nothing to disk. Each system has one edge and runs on
one processor; the load runs on another. The systems run in turn, with new processes for each row. Everywhere Nagle is
off and the queues are unlimited. Messages have QoS 1 and 200 bytes, unless the name of the row says otherwise.
`1x100` is one pair of clients with 100 messages unacknowledged. In the rows `alone` our core runs without the other
nodes, compared with one Mosquitto, or with one amqtt under the load that suits it best. In the rows `2-cores` each
system has two processors, and the load runs on the same two. `latency-200` is at the rate that the C mesh reaches in
down-200x1, and at 90 % of it, where its queues do not grow. In `sharedsub-20-5` five back ends share the reports of
twenty vehicles. The ratio says how many times better ours is: the median of the rounds, and their range.
[decisions.md](decisions.md#what-is-a-cost-when-one-core-carries-everything) explains why some rows fall short.

A script makes this page from one run:

```sh
./scripts/bench compare --json build/bench.json     # about seven minutes a round; --rows, --rounds, --help
./scripts/bench page build/bench.json build/scale.json
```
"""

UNITS = {
    "messages a second": "msg/s",
    "p99 in ms at a rate that the peer carries": "ms p99",
    "connections a second, of vehicles that come back": "conn/s",
    "bytes for an idle vehicle": "B",
}


def page(found: dict[str, Any]) -> str:
    """The page for the JSON of ``scripts/bench compare``."""
    about = found["about"]
    machine = f"Python {about['python']}, Linux {about['kernel']}, {about['cpus']} processors"
    lines = [HEAD, f"{about['version']}; {machine}; rounds: {about['rounds']}.\n"]
    lines.append("![times better than the peer, by row](benchmarks.svg)\n")
    lines.append("| row | ours | the peer | better by | asked for | |")
    lines.append("|---|---|---|---|---|---|")
    lines += [line for line in map(_row, found["rows"]) if line]
    lines += ["", "## Processor time for a message", "", "Microseconds, by process.", ""]
    lines += ["| row | ours | the peer |", "|---|---|---|"]
    lines += [line for line in map(_cost, found["rows"]) if line]
    return "\n".join(lines) + "\n"


def _row(row: dict[str, Any]) -> str:
    ratios = row["ratios"]
    if not ratios:
        return ""
    mine, theirs = row["systems"].values()
    unit = UNITS[row["kind"]]
    middle = statistics.median(ratios)
    verdict = "holds" if middle >= row["asked"] else "**falls short**"
    span = f"{middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    texts = [f"{_figure(row['kind'], results)} {unit}" for results in (mine, theirs)]
    return f"| {row['name']} | {texts[0]} | {texts[1]} | {span} | {row['asked']:.2f} | {verdict} |"


def _figure(kind: str, results: list[dict[str, Any]]) -> str:
    values = [_value(kind, result) for result in results]
    middle = statistics.median(values)
    return f"{middle:,.1f}" if middle < 100 else f"{middle:,.0f}"


def _value(kind: str, result: dict[str, Any]) -> float:
    unit = UNITS[kind]
    if unit == "B":
        return float(sum(result["memory"].values()))
    name = {"msg/s": "rate", "ms p99": "p99", "conn/s": "again"}[unit]
    return float(result[name])


def _cost(row: dict[str, Any]) -> str:
    if UNITS[row["kind"]] != "msg/s" or not row["ratios"]:
        return ""
    return f"| {row['name']} | " + " | ".join(_parts(results) for results in row["systems"].values()) + " |"


def _parts(results: list[dict[str, Any]]) -> str:
    each = {name: statistics.median(result["cpu"][name] for result in results) for name in results[0]["cpu"]}
    return f"{sum(each.values()):.1f} ({', '.join(f'{name} {used:.1f}' for name, used in each.items())})"
