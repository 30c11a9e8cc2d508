"""The results of a run, as a table: for the terminal, and for docs/security.md."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tests.attacks.runner import Result

BEGIN: Final = "<!-- attacks: ./scripts/attack --page writes this table -->"
END: Final = "<!-- end of attacks -->"
LIMIT: Final = 250.0  # milliseconds: what a well-behaved client may notice, at the 99th percentile

_HEAD: Final = """\
| attack | what the mesh did | round trips p50 / p99 / worst, at rest → during | cost to the nodes |
|---|---|---|---|"""
_MB: Final = 1 << 20


def problems(result: Result) -> list[str]:
    """What must not happen and did."""
    found = [result.failed] if result.failed else []
    if result.trips["lost"]:
        found.append(f"{result.trips['lost']:g} acknowledged commands or their reports are lost")
    if result.trips["p99"] >= LIMIT:
        found.append(f"round trips of a well-behaved client take {result.trips['p99']:g} ms at the 99th percentile")
    if result.trips["closes"]:
        found.append(f"a well-behaved client was closed {result.trips['closes']:g} times")
    found += [f"{name} was restarted {cost.restarts} times" for name, cost in result.costs.items() if cost.restarts]
    return found


def line(result: Result) -> str:
    """The row of one attack."""
    size = "" if result.size == 1.0 else f" (at {100 * result.size:g} % of this size)"
    seen = "; ".join(f"{number:,} {what}" for what, number in result.seen.items())
    return f"| `{result.name}`: {result.about}{size} | {seen} | {_trips(result)} | {_costs(result)} |"


def _trips(result: Result) -> str:
    calm, trips = result.calm, result.trips
    return " → ".join(f"{one['p50']:g} / {one['p99']:g} / {one['worst']:g} ms" for one in (calm, trips))


def _costs(result: Result) -> str:
    found = []
    for name, cost in result.costs.items():
        grown, left = (cost.peak - cost.memory) // _MB, (cost.after - cost.memory) // _MB
        opened = cost.most_descriptors - cost.descriptors
        if cost.cpu >= 0.1 or grown or opened:
            found.append(f"{name}: {cost.cpu:.1f} s, +{grown} MB (+{left} after), +{opened} descriptors")
    return "; ".join(found) or "nothing"


def write(page: Path, results: list[Result], names: Iterable[str]) -> None:
    """Write the results into the table of ``page``, whose rows have the order of ``names``; rows of other attacks stay.
    Raises ``ValueError`` if the page has no place for the table."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN!r} and {END!r}")
    rows = {row.split("`")[1]: row for row in old.splitlines() if row.startswith("| `")}
    rows.update((result.name, line(result)) for result in results)
    table = [_HEAD, *(rows[name] for name in names if name in rows)]
    page.write_text("\n".join([before + BEGIN, "", *table, "", end + after]), encoding="utf-8")
