"""Random pairs of topologies on a real mesh: 'mesh plan' and 'mesh up' agree, and the mesh is as a fresh one.

    ./scripts/pairs                       40 pairs; about five minutes on two cores
    ./scripts/pairs --count 5 --seed 7    the same seed gives the same pairs

Each pair begins with the settings that the one before has left, while vehicles and a back end exchange messages. The
exit code is 0 if all pairs hold and no message was lost.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import tools.checkout  # noqa: F401

# isort: split
from tests.e2e.pairs import pairs


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/pairs", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=40, help="how many pairs")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same pairs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mesh-pairs-") as folder:
        try:
            with pairs(Path(folder), options.seed) as running:
                for _ in range(options.count):
                    print(running.next(), flush=True)
                print("passed:", ", ".join(f"{count} pairs with {kind}" for kind, count in running.kinds.items()))
        except AssertionError as error:
            print(f"FAILED: {error}")
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
