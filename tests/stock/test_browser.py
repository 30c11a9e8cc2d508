"""MQTT.js in headless Chromium over ``wss``: a page from an allowed origin connects, one from another does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stock.browser import Browser, Site
from tests.stock.makers import Makers
from tests.stock.peer import V5, V311
from tests.stock.way import CORE, DOOR, Way
from tests.stock.web import Web, turned_away
from tests.support.processes import Processes
from tests.support.shows import shows
from tests.support.waiting import wait_until

pytestmark = pytest.mark.e2e

Show = Callable[[int, Way, int], Browser]


@pytest.fixture
def show(tmp_path: Path, web: Web) -> Iterator[Show]:
    """Opens the page of the site at a port in a browser; it connects at a listener with a version of MQTT."""
    opened: list[Browser | Site] = []

    def browse(port: int, way: Way, version: int) -> Browser:
        opened.append(site := Site(port))
        options: dict[str, Any] = {"clientId": f"page-{way.port}-{version}", "protocolVersion": version}
        if way.user is not None:
            options["username"] = way.user
        wish = {
            "url": f"wss://127.0.0.1:{way.port}/mqtt", "options": options,
            "topic": way.topic("page"), "payload": "hello",
        }  # fmt: skip
        opened.append(browser := Browser(tmp_path, web.server.certificate, site, wish))
        return browser

    yield browse
    for one in reversed(opened):
        one.close()


@pytest.mark.parametrize(("place", "protocol"), [(DOOR, V311), (DOOR, V5), (CORE, V5)])
@shows(v3="6.0.0-1 6.0.0-4", v5="6.0.0-1 6.0.0-4")
def test_a_page_from_an_allowed_origin_connects(
    mesh: Processes, web: Web, numbers: Iterator[int], makers: Makers, show: Show, place: str, protocol: int
) -> None:
    way = web.way(place, "wss", next(numbers))
    watcher = makers.join(("paho", protocol), way)
    watcher.subscribe(way.topic("page"))
    show(web.page, way, protocol).tells("connected", "hello", "closed")
    assert watcher.expect(1)[0].payload == b"hello"


@pytest.mark.parametrize("place", [DOOR, CORE])
def test_a_page_from_another_origin_does_not(
    mesh: Processes, web: Web, numbers: Iterator[int], show: Show, place: str
) -> None:
    before = turned_away(mesh, place)
    show(0, web.way(place, "wss", next(numbers)), V5).tells("closed")
    wait_until(lambda: turned_away(mesh, place) == before + 1, "the count of the listener")
