"""One mesh for all tests of this folder, its two listeners, and the clients of each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.stock.gmqtt_peer import GmqttPeer
from tests.stock.line import Line
from tests.stock.makers import Makers
from tests.stock.mosquitto import VERSIONS, Mosquitto
from tests.stock.mqttjs_peer import JsPeer, Node
from tests.stock.paho_peer import PahoPeer
from tests.stock.peer import V5, V31, Peer
from tests.stock.way import CORE, DOOR, Way, way_in
from tests.stock.web import Web
from tests.support.loop import LoopThread
from tests.support.processes import Processes

# A burst may exceed the default limit of a session's queue.
EXTRA = "limits: {queue_messages: 10000}"
KINDS: dict[str, type[Peer]] = {kind.kind: kind for kind in (PahoPeer, JsPeer, GmqttPeer)}
DIALECTS = [(kind.kind, version) for kind in KINDS.values() for version in kind.versions]
NAMES = {3: "3.1", 4: "3.1.1", 5: "5.0"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parameters: ``dialect``, each client in each version; ``current``, the same without 3.1; ``modern``, 5.0 only;
    ``legacy``, before 5.0; ``version``, each version of Mosquitto's programs; ``way``, the core and the front door."""
    wanted = metafunc.fixturenames
    if "way" in wanted:
        metafunc.parametrize("way", [CORE, DOOR], indirect=True)
    if "dialect" in wanted:
        metafunc.parametrize("dialect", DIALECTS, ids=[f"{kind}-{NAMES[version]}" for kind, version in DIALECTS])
    if "version" in wanted:
        metafunc.parametrize("version", VERSIONS)
    if "modern" in wanted:
        modern = [dialect for dialect in DIALECTS if dialect[1] == V5]
        metafunc.parametrize("modern", modern, ids=[kind for kind, _ in modern])
    if "current" in wanted:
        current = [dialect for dialect in DIALECTS if dialect[1] != V31]
        metafunc.parametrize("current", current, ids=[f"{kind}-{NAMES[version]}" for kind, version in current])
    if "legacy" in wanted:
        legacy = [dialect for dialect in DIALECTS if dialect[1] != V5]
        metafunc.parametrize("legacy", legacy, ids=[f"{kind}-{NAMES[version]}" for kind, version in legacy])


@pytest.fixture(scope="package")
def web(tmp_path_factory: pytest.TempPathFactory) -> Web:
    return Web.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="package")
def mesh(tmp_path_factory: pytest.TempPathFactory, web: Web) -> Iterator[Processes]:
    more = {"more_vehicles": web.listeners(DOOR), "more_backends": web.listeners(CORE)}
    with Processes(tmp_path_factory.mktemp("stock"), ["edge-1", "edge-2"], extra=EXTRA, **more) as running:
        yield running


@pytest.fixture(scope="package")
def node() -> Iterator[Node]:
    running = Node()
    yield running
    running.close()


@pytest.fixture(scope="package")
def loop() -> Iterator[LoopThread]:
    running = LoopThread()
    yield running
    running.close()


@pytest.fixture(scope="package")
def numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def way(request: pytest.FixtureRequest, mesh: Processes, numbers: Iterator[int]) -> Way:
    return way_in(request.param, mesh.vehicles, mesh.backends, next(numbers))


@pytest.fixture
def core(mesh: Processes, numbers: Iterator[int]) -> Way:
    return way_in(CORE, mesh.vehicles, mesh.backends, next(numbers))


@pytest.fixture
def door(mesh: Processes, numbers: Iterator[int]) -> Way:
    return way_in(DOOR, mesh.vehicles, mesh.backends, next(numbers))


@pytest.fixture
def makers(node: Node, loop: LoopThread) -> Iterator[Makers]:
    """Makes clients and disconnects them at the end of the test."""
    made = Makers({PahoPeer.kind: PahoPeer, JsPeer.kind: lambda: JsPeer(node), GmqttPeer.kind: lambda: GmqttPeer(loop)})
    yield made
    made.close()


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    programs = Mosquitto()
    yield programs
    programs.close()


@pytest.fixture
def line() -> Iterator[Callable[[Way], Line]]:
    """Makes lines that can be cut, and closes them at the end of the test."""
    lines: list[Line] = []

    def lay(way: Way) -> Line:
        lines.append(Line(way.port))
        return lines[-1]

    yield lay
    for laid in lines:
        laid.close()
