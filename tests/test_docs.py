"""The pages name existing files and headings; docs/architecture.md has the code's rooms, classes and transitions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.transport.states import EVENTS, STATES, TRANSITIONS

ROOT = Path(__file__).parents[1]
MESH = ROOT / "mesh"
PAGES = sorted(path for folder in (".", "docs", "observability") for path in (ROOT / folder).glob("*.md"))
ARCHITECTURE = ROOT / "docs" / "architecture.md"

FOLDERS = {"docs", "mesh", "observability", "scripts", "tests", "tools", "topology"}
ROOMS = {path.name for path in MESH.iterdir() if (path / "__init__.py").exists()}
SOURCES = {path.name for folder in ("mesh", "tests", "tools") for path in (ROOT / folder).rglob("*.py")} | {"setup.py"}

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"(?:\./)?[\w-][\w.-]*(?:/[\w.-]+)+/?")
SOURCE = re.compile(r"\w+\.py")
PLACEHOLDER = re.compile(r"[A-Z]+")
CLASS = re.compile(r"([A-Z][a-z]+(?:[A-Z][a-z]+)*)(?:\.\w+)?")


def words(page: str) -> Iterator[str]:
    """The words of all code in a page, in fences and in lines."""
    for fence in FENCE.findall(page):
        yield from re.split(r"[\s'\"`]+", fence)
    for code in CODE.findall(FENCE.sub("", page)):
        yield from re.split(r"[\s'\",;:]+", code)


def names_file(word: str) -> bool:
    """Whether the word is a path in this repository. A part in capitals stands for any name."""
    if not PATH.fullmatch(word):
        return False
    parts = word.removeprefix("./").rstrip("/").split("/")
    if any(PLACEHOLDER.fullmatch(part) for part in parts if part != "LICENSE"):
        return False
    return parts[0] in FOLDERS | ROOMS or parts[-1].endswith((".py", ".sh"))


def missing(page: str) -> list[str]:
    """The files that the code of a page names and that do not exist, neither in the repository nor in ``mesh/``."""
    paths = [word for word in words(page) if names_file(word)]
    absent = [path for path in paths if not any((top / path).exists() for top in (ROOT, MESH))]
    return absent + [word for word in words(page) if SOURCE.fullmatch(word) and word not in SOURCES]


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: str, path: Path) -> list[str]:
    """The links of a page at ``path`` that lead to no file, or to no heading of a page."""
    found = []
    for link in LINK.findall(FENCE.sub("", page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name
        exists = not name or target.exists()
        if not exists or (anchor and anchor not in anchors(target.read_text() if name else page)):
            found.append(link)
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_page_names_existing_files(path: Path) -> None:
    assert missing(path.read_text()) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_page_links_to_existing_targets(path: Path) -> None:
    assert broken(path.read_text(), path) == []


def test_architecture_names_existing_classes() -> None:
    source = "\n".join(path.read_text() for path in MESH.rglob("*.py"))
    classes = set(re.findall(r"^class (\w+)", source, re.MULTILINE))
    codes = [CLASS.fullmatch(code) for code in CODE.findall(FENCE.sub("", ARCHITECTURE.read_text()))]
    assert {match[1] for match in codes if match} - classes == set()


def test_architecture_lists_every_room() -> None:
    listed = set(re.findall(r"`mesh/(\w+)`", ARCHITECTURE.read_text()))
    assert listed == ROOMS


def test_architecture_has_every_transition_of_a_connection() -> None:
    rows = re.findall(r"^\| ([A-Z]+) \| .* \| (.*) ?\|$", ARCHITECTURE.read_text(), re.MULTILINE)
    listed = {(state, step) for state, steps in rows if state in STATES for step in re.findall(r"\w+ → [A-Z]+", steps)}
    assert listed == {(STATES[at], f"{EVENTS[event]} → {STATES[to]}") for (at, event), to in TRANSITIONS.items()}


@pytest.mark.parametrize(
    "page",
    [
        "`mesh/wire/none.py`",
        "`transport/none.py`",
        "`none/frame.py`",
        "see `none.py`",
        "`tests/none`",
        "`./scripts/none --help`",
        "```sh\n./scripts/none up topology/local.yaml\n```",
        "`mesh check topology/none.yaml`",
    ],
)
def test_missing_file_is_found(page: str) -> None:
    assert len(missing(page)) == 1


@pytest.mark.parametrize(
    "page",
    [
        "`transport/frame.py`, `mesh/wire`, `tests/`, `frame.py`, `./scripts/mesh up topology/local.yaml`",
        "`vehicles/car-1/cmd`, `/api/status`, `mesh/MESH/NODE`, `.mesh/run.json`, `$SYS/broker/version`, `fleet/#`",
        "tests/none is no code",
    ],
)
def test_other_words_are_not_missing_files(page: str) -> None:
    assert missing(page) == []


def test_broken_link_is_found() -> None:
    page = "# One heading\n[a](#one-heading) [b](#none) [c](docs/none.md) [d](docs/ray.md#none) [e](http://a.example/b)"
    assert broken(page, ROOT / "README.md") == ["#none", "docs/none.md", "docs/ray.md#none"]


def test_examples_of_the_readme_that_share_a_client_id_say_so() -> None:
    """Two clients with one id close each other's connection again and again."""
    text = (ROOT / "README.md").read_text()
    uses = [(found.group(1), found.start()) for found in re.finditer(r"(?:-i |client_id=\")([\w-]+)", text)]
    assert len(uses) >= 3
    for number, (name, place) in enumerate(uses):
        before = [other for one, other in uses[:number] if one == name]
        assert not before or f"client id `{name}`" in text[before[-1] : place]
