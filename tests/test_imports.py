"""No import circle of any size in ``mesh/``: neither between modules nor between the members of a package.

Every ``import`` and ``from … import`` statement counts: also in a function, in a class, and under
``TYPE_CHECKING``. import-linter's ``layers`` contract keeps the order of the rooms and its ``acyclic_siblings``
contract finds circles between the members of a package; it misses a circle between a package's
``__init__`` and one of its modules, and reports no line numbers. So this module checks for circles.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Import:
    """Module ``source`` imports module ``target`` in ``line`` of its file."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line} imports {self.target}"


Graph = Mapping[str, set[str]]


def modules_of(package: Path) -> dict[str, Path]:
    """The modules of a package with their files. A package's ``__init__`` has the name of the package."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(package: Path) -> list[Import]:
    """All imports between different modules of a package, in the order of their names and lines."""
    modules = modules_of(package)
    found = {
        Import(name, target, line)
        for name, path in modules.items()
        for wanted, line in _wanted(ast.parse(path.read_bytes()), name, path.name == "__init__.py")
        if (target := _module(wanted, modules)) and target != name
    }
    return sorted(found, key=lambda each: (each.source, each.line, each.target))


def _wanted(tree: ast.AST, name: str, is_package: bool) -> Iterator[tuple[str, int]]:
    """The absolute names that a module imports, and the lines of the imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.lineno
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, name, is_package)
            for alias in node.names:
                yield (base if alias.name == "*" else f"{base}.{alias.name}"), alias.lineno


def _base(node: ast.ImportFrom, name: str, is_package: bool) -> str:
    """The absolute name of the module between ``from`` and ``import``."""
    if not node.level:
        return node.module or ""
    parts = name.split(".") if is_package else name.split(".")[:-1]
    parts = parts[: len(parts) - (node.level - 1)]
    return ".".join([*parts, node.module] if node.module else parts)


def _module(wanted: str, modules: Mapping[str, Path]) -> str:
    """The module that an imported name denotes, or that defines it; empty if it is not in ``modules``."""
    if wanted in modules:
        return wanted
    inside = wanted.rpartition(".")[0]
    return inside if inside in modules else ""


def circles(graph: Graph) -> list[set[str]]:
    """The strongly connected components of more than one node. The graphs are small, so the search follows the
    definition: nodes that reach each other.
    """
    reach = {node: _reachable(graph, node) for node in graph}
    found = {frozenset({node, *(other for other in reach[node] if node in reach[other])}) for node in graph}
    return sorted((set(each) for each in found if len(each) > 1), key=sorted)


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    pending = list(graph[start])
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending.extend(graph[node])
    return seen


def circles_of_modules(imports: list[Import]) -> list[str]:
    """A text for each circle of modules: their names, and the lines of the imports that form it."""
    return _told([(each.source, each.target, each) for each in imports])


def circles_of_siblings(imports: list[Import]) -> list[str]:
    """A text for each circle between the members of one package. A package stands for all of its modules."""
    edges = []
    for each in imports:
        source, target = each.source.split("."), each.target.split(".")
        depth = next((at for at, (one, other) in enumerate(zip(source, target, strict=False)) if one != other), None)
        if depth is not None:  # None: one is the package that contains the other
            edges.append((".".join(source[: depth + 1]), ".".join(target[: depth + 1]), each))
    return _told(edges)


def _told(edges: list[tuple[str, str, Import]]) -> list[str]:
    graph: dict[str, set[str]] = {}
    for source, target, _ in edges:
        graph.setdefault(source, set()).add(target)
        graph.setdefault(target, set())
    return [
        "\n".join(
            [
                f"circle of {len(circle)}: {', '.join(sorted(circle))}",
                *(f"  {where}" for source, target, where in edges if source in circle and target in circle),
            ]
        )
        for circle in circles(graph)
    ]


def test_modules_import_each_other_in_no_circle() -> None:
    found = circles_of_modules(imports_of(ROOT / "mesh"))
    assert not found, "\n".join(found)


def test_members_of_a_package_import_each_other_in_no_circle() -> None:
    found = circles_of_siblings(imports_of(ROOT / "mesh"))
    assert not found, "\n".join(found)


def test_imports_of_the_whole_package_are_read() -> None:
    imports = imports_of(ROOT / "mesh")
    assert {each.source.split(".")[1] for each in imports} >= {"wire", "broker", "cluster", "cli"}
    assert ("mesh.broker.trace", "mesh.wire.packets") in {(each.source, each.target) for each in imports}


def write(root: Path, files: Mapping[str, str]) -> Path:
    """A package named ``fake`` of these files; each folder is a package."""
    for name, text in {"__init__.py": "", **files}.items():
        path = root / "fake" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for folder in path.parents:
            if folder == root:
                break
            (folder / "__init__.py").touch()
    return root / "fake"


@pytest.mark.parametrize(
    ("first", "line"),
    [
        ("import fake.b", 1),
        ("from fake.b import thing", 1),
        ("from fake import b", 1),
        ("from . import b", 1),
        ("from .b import thing", 1),
        ("from fake.b import *", 1),
        ("def function():\n    from fake.b import thing", 2),
        ("class Body:\n    def method(self):\n        import fake.b as other", 3),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fake.b import Thing", 3),
        ("try:\n    from fake.b import (\n        one,\n        two,\n    )\nexcept ImportError:\n    pass", 3),
    ],
)
def test_circle_of_two_is_found_for_every_kind_of_import(tmp_path: Path, first: str, line: int) -> None:
    package = write(tmp_path, {"a.py": first, "b.py": "\nimport fake.a"})
    (told,) = circles_of_modules(imports_of(package))
    head, *lines = told.splitlines()
    assert head == "circle of 2: fake.a, fake.b"
    assert lines[0] == f"  fake.a:{line} imports fake.b"
    assert lines[-1] == "  fake.b:2 imports fake.a"
    assert len(circles_of_siblings(imports_of(package))) == 1


def test_circle_of_three_is_found_without_other_modules(tmp_path: Path) -> None:
    package = write(
        tmp_path,
        {
            "a.py": "from fake.b import thing\nfrom fake import leaf",
            "b.py": "def later():\n    from .c import thing",
            "c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fake.a",
            "leaf.py": "import os.path",
            "above.py": "import fake.a",
        },
    )
    assert circles_of_modules(imports_of(package)) == [
        (
            "circle of 3: fake.a, fake.b, fake.c\n"
            "  fake.a:1 imports fake.b\n"
            "  fake.b:2 imports fake.c\n"
            "  fake.c:3 imports fake.a"
        )
    ]


def test_two_circles_are_reported_separately(tmp_path: Path) -> None:
    package = write(
        tmp_path,
        {
            "a.py": "import fake.b\nimport fake.c",
            "b.py": "import fake.a",
            "c.py": "import fake.d",
            "d.py": "import fake.c",
        },
    )
    heads = [told.splitlines()[0] for told in circles_of_modules(imports_of(package))]
    assert heads == ["circle of 2: fake.a, fake.b", "circle of 2: fake.c, fake.d"]


def test_circle_of_packages_without_a_circle_of_modules_is_found(tmp_path: Path) -> None:
    package = write(
        tmp_path,
        {
            "one/low.py": "",
            "one/high.py": "from ..two.low import thing",
            "two/low.py": "",
            "two/high.py": "from fake.one.low import thing",
        },
    )
    imports = imports_of(package)
    assert not circles_of_modules(imports)
    assert circles_of_siblings(imports) == [
        (
            "circle of 2: fake.one, fake.two\n"
            "  fake.one.high:1 imports fake.two.low\n"
            "  fake.two.high:1 imports fake.one.low"
        )
    ]


def test_circle_of_a_package_and_its_own_module_is_found(tmp_path: Path) -> None:
    package = write(tmp_path, {"one/__init__.py": "from .inner import thing", "one/inner.py": "from fake.one import x"})
    assert circles_of_modules(imports_of(package)) == [
        (
            "circle of 2: fake.one, fake.one.inner\n"
            "  fake.one:1 imports fake.one.inner\n"
            "  fake.one.inner:1 imports fake.one"
        )
    ]


def test_package_without_circles_passes(tmp_path: Path) -> None:
    package = write(
        tmp_path,
        {
            "one/__init__.py": "from .inner import thing",
            "one/inner.py": "import sys",
            "two.py": "from fake.one import thing\nimport fake.one.inner",
        },
    )
    imports = imports_of(package)
    assert len(imports) == 3
    assert not circles_of_modules(imports)
    assert not circles_of_siblings(imports)
