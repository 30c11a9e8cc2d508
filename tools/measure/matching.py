"""The time to find the receivers of a topic, and whether filters that do not match cost anything.

The sets have 100 to 100,000 filters, a fifth each of these shapes: without wildcard, ``+`` in the middle, ``+`` at the
end, ``#`` at the end, and ``+`` at the first level; some share their first levels with the topic. Eight filters match
in every set. There are two rows: the tree alone, and a route of the broker whose cache does not have the topic. Rounds
are interleaved. It prints the medians in microseconds with their range, the ratio of the largest set to the smallest,
and whether the package is compiled.

    ./scripts/measure matching [--rounds 7] [--calls 20000]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from mesh.broker.principal import BACKEND
from mesh.broker.session import Interest, Session
from mesh.broker.subscriptions import Subscriptions
from mesh.session.outbound import Depth
from mesh.version import describe
from mesh.wire.packets import Subscription
from mesh.wire.tree import FilterTree

SIZES = (100, 1_000, 10_000, 100_000)
TOPIC = "fleet/eu/vehicles/V1/status/battery"
MATCHING = (
    TOPIC, "fleet/eu/vehicles/V1/status/+", "fleet/eu/vehicles/V1/#", "fleet/+/vehicles/V1/status/battery",
    "fleet/eu/vehicles/+/status/battery", "+/eu/vehicles/V1/status/battery", "fleet/#", "fleet/eu/+/V1/+/battery",
)  # fmt: skip
SHAPES = (
    "fleet/eu/vehicles/X{}/status/battery", "fleet/eu/vehicles/X{}/+/battery", "fleet/eu/vehicles/X{}/status/+",
    "fleet/us/X{}/#", "+/X{}/vehicles/V1/status/battery",
)  # fmt: skip


def filters(size: int) -> list[str]:
    """The eight filters that match, and others."""
    others = [SHAPES[number % len(SHAPES)].format(number) for number in range(size - len(MATCHING))]
    return [*MATCHING, *others]


def tree(size: int) -> Callable[[], int]:
    """A match in the tree alone."""
    made: FilterTree[int] = FilterTree()
    for number, filter in enumerate(filters(size)):
        made.add(filter, number, number)
    return lambda: len(made.match(TOPIC))


def routes(size: int) -> Callable[[], int]:
    """A route of the broker without its cache: the cache has one topic, and two topics alternate."""
    made = Subscriptions(1)
    depth = Depth()
    for number, filter in enumerate(filters(size)):
        session = Session(number, (BACKEND, "app", str(number)), "", 32, depth)
        made.add(Interest(session, Subscription(filter, 1), 0))

    def ask() -> int:
        made.route("nobody/asks")
        return len(made.route(TOPIC).targets)

    return ask


def measure(call: Callable[[], int], calls: int) -> float:
    """Microseconds for one call."""
    assert call() == len(MATCHING)
    began = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return (time.perf_counter_ns() - began) / calls / 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=20_000)
    arguments = parser.parse_args()
    print(f"{describe()}; {len(MATCHING)} filters match")
    for name, make in (("tree", tree), ("route", routes)):
        calls = {size: make(size) for size in SIZES}
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(arguments.rounds):
            for size, call in calls.items():
                times[size].append(measure(call, arguments.calls))
        for size, found in times.items():
            middle = statistics.median(found)
            print(f"{name:<6} {size:>8,} filters  {middle:6.2f} us ({min(found):.2f} to {max(found):.2f})")
        ratio = statistics.median(times[SIZES[-1]]) / statistics.median(times[SIZES[0]])
        print(f"{name:<6} {SIZES[-1]:,} filters take {ratio:.2f} x the time of {SIZES[0]}")


if __name__ == "__main__":
    main()
