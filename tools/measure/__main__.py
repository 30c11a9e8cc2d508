"""``scripts/measure NAME …``: runs the module of this name, which describes its figures and its options."""

from __future__ import annotations

import sys
from importlib import import_module

MEASURES = ("changes", "idle", "journal", "matching", "passwords", "relay")


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in MEASURES:
        print(f"usage: scripts/measure {{{','.join(MEASURES)}}} [OPTIONS]", file=sys.stderr)
        return 2
    name = sys.argv.pop(1)
    sys.argv[0] = f"scripts/measure {name}"
    import_module(f"tools.measure.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
