"""Files that are compiled: no function gives one name two types, which only fails when the compiled code runs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def compiled_files() -> list[Path]:
    """The rooms and files that ``setup.py`` names."""
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse((ROOT / "setup.py").read_text()).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("ROOMS", "FILES")
    }
    rooms = [path for room in values["ROOMS"] for path in sorted((ROOT / "mesh" / room).glob("*.py"))]
    return rooms + [ROOT / "mesh" / name for name in values["FILES"]]


def two_types(code: str) -> list[str]:
    """Names that are a number and a truth value in one function, or stand for exceptions of two types."""
    found = []
    for function in ast.walk(ast.parse(code)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        kinds: dict[str, set[str]] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.ExceptHandler) and node.name and node.type:
                kinds.setdefault(node.name, set()).add(ast.unparse(node.type))
            elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                kind = kind_of(node.value)
                if kind:
                    kinds.setdefault(node.targets[0].id, set()).add(kind)
        found += [f"{function.name}: {name}" for name, types in kinds.items() if len(types) > 1]
    return found


def kind_of(value: ast.expr) -> str:
    if isinstance(value, ast.Constant) and type(value.value) in (bool, int):
        return type(value.value).__name__
    if isinstance(value, ast.Compare) or (isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)):
        return "bool"
    return ""


def test_no_name_of_a_compiled_function_has_two_types() -> None:
    files = compiled_files()
    assert len(files) > 100
    assert {str(path.relative_to(ROOT)): names for path in files if (names := two_types(path.read_text()))} == {}


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n    known = 0\n    known = 1 in []\n",
        "def f():\n try:\n  g()\n except OSError as e:\n  pass\n except ValueError as e:\n  pass\n",
    ],
)
def test_two_types_are_found(code: str) -> None:
    assert len(two_types(code)) == 1
