"""The metrics of real nodes, checked also with promtool."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e.scenarios.fan_out import reports_arrive_once
from tests.e2e.scraping import scrape
from tests.support.processes import Processes
from tests.support.promtool import check_metrics

pytestmark = pytest.mark.e2e

ANY = "127.0.0.1:0"


def names_in(text: str) -> set[str]:
    """The names of the metric families of a text."""
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}


def value(text: str, series: str) -> float:
    """The value of the series that begins with this text."""
    found = [line for line in text.splitlines() if line.startswith(series)]
    assert len(found) == 1, f"{series}: expected one series, found {len(found)}"
    return float(found[0].split()[-1])


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("shown"), ["edge-1", "edge-2"], prometheus=ANY) as running:
        asyncio.run(reports_arrive_once(running, vehicles=20, messages=20))
        yield running


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A mesh with another name and other names of its edges."""
    with Processes(tmp_path_factory.mktemp("renamed"), ["north", "south"], prometheus=ANY) as running:
        yield running


@pytest.mark.parametrize("node", ["edge-1", "core", "door"])
def test_promtool_accepts_the_metrics(mesh: Processes, node: str) -> None:
    check_metrics(scrape(mesh.metrics(node)))


@pytest.mark.parametrize("node", ["edge-1", "core", "door"])
def test_every_family_has_its_own_help_text(mesh: Processes, node: str) -> None:
    helps = [line.split(maxsplit=3) for line in scrape(mesh.metrics(node)).splitlines() if line.startswith("# HELP ")]
    assert len({name for _, _, name, _ in helps}) == len(helps)
    assert len({text for _, _, _, text in helps}) == len(helps)


def test_metric_names_do_not_depend_on_the_topology(mesh: Processes, other: Processes) -> None:
    for node, renamed in (("edge-1", "north"), ("core", "core"), ("door", "door")):
        assert names_in(scrape(mesh.metrics(node))) == names_in(scrape(other.metrics(renamed)))
    assert 'peer="north"' in scrape(other.metrics("core"))


def test_every_series_names_its_mesh_and_node(mesh: Processes) -> None:
    for node in mesh.names():
        series = [line for line in scrape(mesh.metrics(node)).splitlines() if not line.startswith("#")]
        assert all('mesh="shown' in line and f'node="{node}"' in line for line in series)


def test_durations_are_sampled(mesh: Processes) -> None:
    """400 reports have passed; one in 16 is measured."""
    texts = [scrape(mesh.metrics(edge)) for edge in ("edge-1", "edge-2")]
    published = sum(value(text, "mesh_messages_published_total") for text in texts)
    acknowledged = sum(value(text, "mesh_publish_acknowledge_seconds_count") for text in texts)
    delivered = sum(value(text, "mesh_publish_deliver_seconds_count") for text in texts)
    assert published >= 400
    assert 400 // 16 - 2 <= acknowledged <= published / 16
    assert delivered >= 400 // 16 - 2
    assert all(0 < value(text, "mesh_publish_acknowledge_seconds_sum") < 400 for text in texts)
    assert all(value(text, "mesh_journal_commit_seconds_count") > 0 for text in texts)


def test_links_that_are_up_are_reported(mesh: Processes) -> None:
    core = scrape(mesh.metrics("core"))
    for edge in ("edge-1", "edge-2"):
        assert value(core, f'mesh_link_up{{link="tier",mesh="{mesh.name}",node="core",peer="{edge}"') == 1
    door = scrape(mesh.metrics("door"))
    assert value(door, f'mesh_link_up{{link="device",mesh="{mesh.name}",node="door",peer="edge-1"') == 1
