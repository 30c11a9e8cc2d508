"""All checks of the project: style, types, imports, and every test.

    ./scripts/test            all checks; about thirteen minutes on two cores
    ./scripts/test --quick    all checks except the tests that start whole meshes

It knows which tests run on which variant of the package (compiled or pure); it must never know what they test. The
package is compiled while the checks run that need its sources only. What always holds: the last line has the counts;
the exit code is 0 only if every step succeeded; a run that hangs is stopped and its position is printed.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, final

from tools import ROOT

VENV: Final = Path(sys.prefix)
SECONDS: Final = 900  # for one run of pytest
ASIDE: Final = ("nice", "-n", "10")  # the compiler takes longer than what runs beside it, so it has the first claim
FAST: Final = "not ray and not e2e"
UNCOMPILED: Final = (
    "figures", "wire", "session", "journal", "broker", "transport", "frontdoor", "core", "policy", "conformance"
)  # fmt: skip
SHARED: Final = ("conformance", "stock")  # many tests that share a mesh

_STARTS: Final = re.compile(r"\bmark\.(ray|e2e)\b")
_SUMMARY: Final = re.compile(r"\d+ (passed|failed|error|skipped|deselected).* in [0-9.]+s")


def say(*lines: str) -> None:
    """Print a line on stderr, beside the output of the steps."""
    sys.stdout.flush()
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def counts(output: str) -> tuple[int, int, int]:
    """How many tests passed, failed and were skipped, from the last summary line of pytest."""
    summaries = [line for line in output.splitlines() if _SUMMARY.search(line)]
    last = summaries[-1] if summaries else ""

    def number(word: str) -> int:
        found = re.search(rf"(\d+) {word}", last)
        return int(found[1]) if found else 0

    return number("passed"), number("failed") + number("error"), number("skipped")


def installed() -> str:
    """The version of the installed package, and whether it is compiled."""
    command = [sys.executable, "-P", "-m", "mesh.cli.main", "--version"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def starting_meshes() -> list[str]:
    """The files of tests that start meshes of their own. To import the others as well takes each process seconds."""
    files = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py"))
    return [str(path) for path in files if path.parts[1] not in SHARED and _STARTS.search((ROOT / path).read_text())]


@final
class Installation:
    """Installs something, if its sources have changed. The compiled package is installed beside the first checks."""

    def __init__(self, function: str) -> None:
        """``function``: one of ``tools/environment.sh``."""
        command = f". '{ROOT}/tools/environment.sh'; {function} test"
        self._process = subprocess.Popen(["bash", "-eu", "-c", command], stdin=subprocess.DEVNULL)

    def wait(self) -> bool:
        """Whether it is installed."""
        return self._process.wait() == 0


@final
class Checks:
    """The steps so far. ``aside``: a command that runs those that have time; ``compiled``: the installed package is."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.aside: tuple[str, ...] = ()
        self.compiled = False
        self.passed = 0
        self.broken = 0
        self.skipped = 0

    def step(self, name: str, *command: str) -> None:
        """Run a program of the environment."""
        say("", f"--- {name}")
        program = VENV / "bin" / command[0]
        if subprocess.run([*self.aside, str(program), *command[1:]], cwd=ROOT).returncode:
            self.failed.append(name)

    def tests(self, name: str, *words: str, sources: bool = False) -> None:
        """Run pytest on the installed package; with ``sources``, on the package of the checkout."""
        say("", f"--- tests: {name}")
        # Images of containers set the second one, with which each process of each run compiles all tests again.
        without = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
        environment = {key: value for key, value in os.environ.items() if key not in without}
        if sources:
            environment["PYTHONPATH"] = str(ROOT)
        environment["MESH_UNDER_TEST"] = "compiled" if self.compiled and not sources else "pure"
        # A run that hangs is interrupted; then pytest prints its position.
        command = [*self.aside, "timeout", "--signal=INT", "--kill-after=30", str(SECONDS)]
        command += [sys.executable, "-m", "pytest", "-q", *words]
        output = []
        with (VENV / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, errors="replace",
            )  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                output.append(line)
                log.write(line)
                sys.stdout.write(line)
                sys.stdout.flush()
        if process.wait():
            self.failed.append(f"tests {name}")
        passed, broken, skipped = counts("".join(output))
        self.passed += passed
        self.broken += broken
        self.skipped += skipped


def run(checks: Checks, quick: bool) -> None:
    """Run all steps."""
    installation = Installation("ensure_environment")
    if not Installation("ensure_requirements").wait():
        checks.failed.append("requirements")
        installation.wait()
        return
    checks.aside = ASIDE
    checks.step("style", "ruff", "check", ".")
    checks.step("types", "mypy", "--strict")
    checks.step("imports", "lint-imports")
    # Most tests wait more than they compute, so more processes run at the same time than there are processors.
    spread = ("-n", "6", "--dist", "worksteal")
    beside = ("-n", "3", "--dist", "worksteal")  # the compiler has the first claim
    pure = os.environ.get("MESH_PURE") == "1"
    if not pure:
        folders = (f"tests/{room}" for room in UNCOMPILED)
        checks.tests("uncompiled", *folders, "-m", FAST, *beside, sources=True)
    checks.aside = ()
    if not installation.wait():
        checks.failed.append("installation")
        return
    version = installed()
    say(f"under test: {version}, Python {platform.python_version()}")
    checks.compiled = "(compiled)" in version
    if not checks.compiled:
        say("the package is not compiled, so only the uncompiled one is tested")
        if not pure and shutil.which("cc"):
            say("there is a C compiler; .venv/install.log shows why it failed"
                " (on Debian or Ubuntu: apt-get install python3-dev)")  # fmt: skip
            checks.failed.append("compilation")
    checks.tests("compiled" if checks.compiled else "pure", "-m", FAST, *spread)
    if not quick:
        # A whole mesh waits and computes in turns. The files with a mesh of their own come first: the others, which are
        # short, fill the time until the last of them ends.
        whole = ("-m", "ray or e2e", "-n", "4", "--dist", "loadfile", "--no-loadscope-reorder")
        checks.tests("end-to-end", *starting_meshes(), *(f"tests/{room}" for room in SHARED), *whole)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/test", description="All checks of the project.")
    parser.add_argument("--quick", action="store_true", help="without the tests that start whole meshes")
    options = parser.parse_args()
    began = time.monotonic()
    checks = Checks()
    run(checks, options.quick)
    if checks.failed:
        say("", f"FAILED: {', '.join(checks.failed)}")
    seconds = time.monotonic() - began
    print(f"{checks.passed} passed, {checks.broken} failed, {checks.skipped} skipped in {seconds:.0f}s")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
