"""A server that redirects its clients to another server (MQTT 5.0 section 4.11)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mesh.wire.packets import Connect
from tests.conformance.peer import Peer
from tests.conformance.socket_world import SocketWire
from tests.conformance.world import properties
from tests.support.processes import Processes
from tests.support.shows import shows

pytestmark = pytest.mark.e2e
OTHER = "mqtt-2.example:1883"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with Processes(tmp_path_factory.mktemp("moved"), ["edge"], redirect=OTHER) as running:
        yield running


@pytest.fixture(params=["core", "door"])
def port(request: pytest.FixtureRequest, mesh: Processes) -> int:
    return mesh.backends if request.param == "core" else mesh.vehicles


@shows(v5="3.2.2-7")
def test_redirected_client_gets_the_server_reference(port: int) -> None:
    peer = Peer(SocketWire(port), 5, "c")
    answer = peer.connect(Connect(5, "c", True, 60, "V1"))
    assert answer.reason == 0x9C
    assert answer.properties is not None
    assert answer.properties.server_reference == OTHER
    assert peer.expect_close() == []


@shows(v5="3.1.2-24")
def test_server_reference_that_does_not_fit_is_omitted(port: int) -> None:
    peer = Peer(SocketWire(port), 5, "c")
    answer = peer.connect(Connect(5, "c", True, 60, "V1", properties=properties(maximum_packet_size=len(OTHER))))
    assert (answer.reason, answer.properties) == (0x9C, None)
    assert peer.expect_close() == []


def test_older_client_gets_server_unavailable(port: int) -> None:
    peer = Peer(SocketWire(port), 4, "c")
    assert peer.connect(Connect(4, "c", True, 60, "V1")).reason == 3
    assert peer.expect_close() == []
