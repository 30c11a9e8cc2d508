"""The layout of the tests: no module imports a test module; folders share only tests/support and tests/fakes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
SHARED = {"support", "fakes"}

# Names of functions that wait for an arbitrary condition. A function that waits for one thing is named after it.
WAITING = re.compile(r"(?!test_)_?(\w+_)?(until|eventually)(_\w+)?|_?wait_for|_?poll")


def imported(code: str) -> Iterator[tuple[str, ...]]:
    """The parts of every name that a module imports, also within functions and classes."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else []
            yield from ((*module, alias.name) for alias in node.names)


def of_tests(code: str) -> list[str]:
    """The test modules and conftests that a module imports."""
    own = ("tests", "test_", "conftest")
    return [
        ".".join(name)
        for name in imported(code)
        if name[0].startswith(own) and any(part == "conftest" or part.startswith("test_") for part in name)
    ]


def of_other_folders(code: str, folder: str) -> list[str]:
    """The names that a module of this test folder imports from folders other than its own and the shared ones."""
    allowed = {folder, *SHARED}
    return [".".join(name) for name in imported(code) if name[0] == "tests" and not allowed.intersection(name[1:2])]


def waiting(code: str) -> list[str]:
    """The functions of a module that wait for an arbitrary condition."""
    functions = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [function.name for function in functions if WAITING.fullmatch(function.name)]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_module_imports_a_test_module() -> None:
    assert {shown(path): found for path in [*TESTS, *TOOLS] if (found := of_tests(path.read_text()))} == {}


def test_test_folder_imports_only_itself_and_shared_folders() -> None:
    found = {shown(path): of_other_folders(path.read_text(), path.relative_to(ROOT).parts[1]) for path in TESTS}
    assert {path: names for path, names in found.items() if names} == {}


def test_only_support_waits_for_arbitrary_conditions() -> None:
    support = ROOT / "tests" / "support"
    found = {shown(path): waiting(path.read_text()) for path in TESTS if support not in path.parents}
    assert {path: names for path, names in found.items() if names} == {}
    assert waiting((support / "waiting.py").read_text()) == ["until", "wait_until"]


@pytest.mark.parametrize(
    "code",
    [
        "from tests.conformance.test_will import will",
        "from tests.conformance import test_will",
        "import tests.conformance.test_will as will",
        "from . import test_will",
        "from .conftest import world",
        "def f():\n    from tests.conftest import header",
    ],
)
def test_import_of_a_test_module_is_found(code: str) -> None:
    assert len(of_tests(code)) == 1


def test_imports_of_other_modules_are_accepted() -> None:
    assert of_tests("from tests.support.bare import Bare\nfrom mesh.policy import test_of_time\nimport pytest") == []


def test_import_from_another_folder_is_found() -> None:
    code = "from tests.e2e.fleet import Fleet\nfrom tests.fakes.disk import Disk\nfrom tests.core.harness import Mesh"
    assert of_other_folders(code, "core") == ["tests.e2e.fleet.Fleet"]
    assert of_other_folders("from tests import e2e, core", "core") == ["tests.e2e"]


def test_waiting_function_is_found_by_its_name() -> None:
    names = ["until", "eventually", "wait_until", "_until_up", "poll", "wait_for", "test_it_waits_until_noon", "wait"]
    code = "\n".join(f"async def {name}(): ..." for name in names)
    assert waiting(code) == names[:6]
