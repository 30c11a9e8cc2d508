"""Makes docs/conformance.md: the normative statements of MQTT 3.1.1 and 5.0, and the tests that show each of them.

    scripts/conformance            writes the page
    scripts/conformance --check    writes nothing; exit code 1 if the page is not current

It reads the statements (tests/conformance/statements, in our own words) and the decorators ``shows`` of the tests. It
does not import or run the tests.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from tools import ROOT

PAGE = ROOT / "docs" / "conformance.md"
STATEMENTS = ROOT / "tests" / "conformance" / "statements"
VERSIONS = {"v5": ("MQTT 5.0", "mqtt5"), "v3": ("MQTT 3.1.1", "mqtt311")}
CHAPTERS = {
    "1": "Introduction: data representation",
    "2": "Format of packets",
    "3": "Packets",
    "4": "Operation",
    "5": "Security",
    "6": "WebSocket",
    "7": "Conformance",
}


class Statement(NamedTuple):
    """One normative statement. ``who`` it binds is ``server``, ``client`` or ``both``."""

    who: str
    says: str


class Shown(NamedTuple):
    """A test: its file below the root, its name, and the numbers of the statements that it shows."""

    file: str
    test: str
    version: str
    number: str


class Mistake(Exception):
    """The statements and the tests contradict each other; one sentence."""


@cache
def statements(version: str) -> dict[str, Statement]:
    """The statements of ``v5`` or ``v3``, by number, in the order of the specification."""
    data = yaml.safe_load((STATEMENTS / f"{VERSIONS[version][1]}.yaml").read_text())
    return {str(number): Statement(**fields) for number, fields in data.items()}


def unshown(version: str) -> dict[str, str]:
    """The reasons for statements without a test, by number."""
    data = yaml.safe_load((STATEMENTS / "unshown.yaml").read_text()) or {}
    return {str(number): why for number, why in (data.get(version) or {}).items()}


def shown() -> Iterator[Shown]:
    """All tests that show statements, in the order of files and lines."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "shows":
                        yield from numbers(decorator, path, node.name)


def numbers(call: ast.Call, path: Path, test: str) -> Iterator[Shown]:
    """The statement numbers in one decorator."""
    for keyword in call.keywords:
        value = ast.literal_eval(keyword.value)
        for number in value.split():
            yield Shown(str(path.relative_to(ROOT)), test, str(keyword.arg), number)


def page() -> str:
    """The text of the page. Raises ``Mistake``."""
    tests: dict[str, dict[str, list[Shown]]] = {version: {} for version in VERSIONS}
    for one in shown():
        if one.version not in tests or one.number not in statements(one.version):
            raise Mistake(f"{one.file}: {one.test} shows {one.version} {one.number}, and there is no such statement")
        found = tests[one.version].setdefault(one.number, [])
        if one not in found:
            found.append(one)
    parts = [_HEAD]
    for version in VERSIONS:
        parts.append(section(version, tests[version]))
    return "\n".join(parts)


_HEAD = """\
# Conformance

Every normative statement of MQTT 5.0 and MQTT 3.1.1 in our own words, and the tests that show that this broker keeps
it. `scripts/conformance` makes this page from the tests; do not edit it. Scenarios in `tests/conformance` run three
times: against the broker without a socket, and through sockets at the core's endpoint and at the front door. A
statement that binds clients only needs no test; some have one, because the specification prescribes how a server
reacts to a client that breaks it.

The suites of eclipse/paho.mqtt.testing are run by `scripts/suites` against `topology/conformance.yaml`.
"""


def section(version: str, tests: dict[str, list[Shown]]) -> str:
    """The section of one specification."""
    known, reasons = statements(version), unshown(version)
    for number in reasons:
        if number not in known or number in tests:
            raise Mistake(f"unshown.yaml: {version} {number} is no statement, or is shown by a test")
    bind = [number for number, statement in known.items() if statement.who != "client"]
    have = [number for number in bind if number in tests]
    explained = sum(number in reasons for number in bind)
    summary = (
        f"{len(bind)} of {len(known)} statements bind a server. {len(have)} of them are shown by a test"
        f" ({100 * len(have) / len(bind):.1f} %), {explained} are explained below instead."
    )
    lines = [f"## {VERSIONS[version][0]}", "", summary]
    chapter = ""
    for number, statement in known.items():
        if number[0] != chapter:
            chapter = number[0]
            lines += ["", f"### {chapter} {CHAPTERS[chapter]}", "", "| | statement | binds | shown by |"]
            lines.append("|---|---|---|---|")
        lines.append(f"| {number} | {statement.says} | {statement.who} | {proof(number, statement, tests, reasons)} |")
    return "\n".join([*lines, ""])


def proof(number: str, statement: Statement, tests: dict[str, list[Shown]], reasons: dict[str, str]) -> str:
    """The last cell of a row."""
    if number in tests:
        return "<br>".join(f"[{one.test}](../{one.file})" for one in tests[number])
    if number in reasons:
        return f"not shown: {reasons[number]}"
    return "–" if statement.who == "client" else "**no test**"


def main() -> int:
    try:
        text = page()
    except Mistake as mistake:
        print(mistake, file=sys.stderr)
        return 1
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text() != text:
            print("docs/conformance.md is not current; run scripts/conformance", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text)
    for line in text.splitlines():
        if " statements bind a server." in line:
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
