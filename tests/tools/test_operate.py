"""docs/operate.md says of every key of the topology what a change of it does."""

from __future__ import annotations

from mesh.topology.keys import declared
from mesh.topology.topology import LimitsSpec
from tools.operate import PAGE, page


def test_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_page_has_every_limit_and_the_kind_of_each_row() -> None:
    table = page().partition("| key | a change is |")[2]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    keys = [key for row in rows for key in row[0].split(", ")]
    assert {f"`limits.{item.path}`" for item in declared(LimitsSpec)} <= set(keys)
    assert len(keys) == len(set(keys)), "a key has two rows"
    assert {row[1].strip() for row in rows} == {"live", "rolling", "refused", "live or refused"}
