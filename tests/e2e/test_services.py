"""What 'mesh up' and 'mesh log-level' change in the processes of a running mesh: its console, its metrics, its logs."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from mesh.cluster.status import NodeRow
from tests.support.cluster import Cluster
from tests.support.ports import free_ports, free_range
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.ray]


class Served(Cluster):
    """A mesh whose file is written by the test."""

    def change(self, *texts: str, edges: tuple[str, ...] = ("edge-1", "edge-2"), prometheus: str = "") -> str:
        """Put the topology with these lines in force; returns what ``mesh up`` prints."""
        self._edges, self._prometheus = list(edges), prometheus
        self.write()
        with self.file.open("a") as file:
            file.write("".join(f"{text}\n" for text in texts))
        return self.command("up", str(self.file))

    def rows(self) -> dict[str, NodeRow]:
        return {row.name: row for row in self._rows()}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    running = Served(tmp_path_factory.mktemp("services"), ["edge-1", "edge-2"])
    running.start()
    try:
        yield running
    finally:
        running.stop()


def get(port: int, path: str) -> str:
    """The body of an answer; empty without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def test_the_console_comes_moves_and_goes(mesh: Served) -> None:
    first, second = free_ports(2)
    mesh.change(f'console: "127.0.0.1:{first}"')
    wait_until(lambda: get(first, "/healthz") and mesh.rows()["console"].state == "ready", "the console answers")
    process = mesh.rows()["console"].pid
    assert "console" in mesh.change(f'console: "127.0.0.1:{second}"').partition("confirmed by")[2]
    assert get(second, "/healthz")
    wait_until(lambda: not get(first, "/healthz"), "the old address is given up")
    wait_until(lambda: mesh.rows()["console"].listen == (f"http://127.0.0.1:{second}",), "the status has the address")
    assert (mesh.rows()["console"].pid, mesh.rows()["console"].state) == (process, "ready")
    mesh.change()
    wait_until(lambda: "console" not in mesh.rows(), "the console has ended")
    assert not get(second, "/healthz")


def test_the_metrics_ports_make_room_for_an_added_edge(mesh: Served) -> None:
    first = free_range(5)
    address = f"127.0.0.1:{first}"

    def served() -> dict[str, str]:
        return {name: row.metrics for name, row in mesh.rows().items() if name not in ("etcd", "console")}

    def expected(*names: str) -> dict[str, str]:
        return {name: f"127.0.0.1:{first + number}" for number, name in enumerate(names)}

    before = {name: row.pid for name, row in mesh.rows().items()}
    mesh.change(prometheus=address)
    wait_until(lambda: served() == expected("edge-1", "edge-2", "core", "door"), "each node has its port")
    mesh.change(prometheus=address, edges=("edge-1", "edge-2", "edge-3"))
    wait_until(lambda: served() == expected("edge-1", "edge-2", "edge-3", "core", "door"), "each has its new port")
    for name, place in served().items():
        assert f'node="{name}"' in get(int(place.rpartition(":")[2]), "/metrics")
    mesh.change(edges=("edge-1", "edge-2", "edge-3"))
    wait_until(lambda: not any(served().values()), "no node has metrics")
    assert {name: mesh.rows()[name].pid for name in before} == before


def test_levels_of_the_logs_hold_in_every_process(mesh: Served) -> None:
    mesh.change()

    def levels() -> dict[str, str]:
        """The levels of the mesh's loggers that the nodes say are in force."""
        told = json.loads(mesh.command("settings", "--json", "--topology", str(mesh.file)))
        return {name: one["settings"]["log"]["mesh"] for name, one in told.items()}

    names = ("core", "door", "edge-1", "edge-2")
    wait_until(lambda: levels() == dict.fromkeys(names, "INFO"), "the removed edge has ended")
    out = mesh.command("log-level", "debug", "--topology", str(mesh.file))
    assert "confirmed by core, door, edge-1, edge-2" in out
    assert levels() == dict.fromkeys(names, "DEBUG")
    assert mesh.command("log-level", "--topology", str(mesh.file)) == "all nodes  debug\n"
    assert "logs.level  debug -> info" in mesh.change()  # it goes back to what the file says
    assert levels() == dict.fromkeys(names, "INFO")
