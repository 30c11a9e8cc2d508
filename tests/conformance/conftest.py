"""The worlds in which the scenarios run: the broker alone, and a real mesh at the core and at the front door."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance import socket_world
from tests.conformance.broker_world import BrokerWorld
from tests.conformance.socket_world import SocketWorld
from tests.conformance.world import World
from tests.support.processes import Processes

_SOCKETS = [pytest.param("core", marks=pytest.mark.e2e), pytest.param("door", marks=pytest.mark.e2e)]


@pytest.fixture(scope="package")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with socket_world.processes(tmp_path_factory.mktemp("conformance")) as running:
        yield running


def _world(name: str, request: pytest.FixtureRequest) -> World:
    return BrokerWorld() if name == "broker" else SocketWorld(name, request.getfixturevalue("mesh"))


@pytest.fixture(params=["broker", *_SOCKETS])
def world(request: pytest.FixtureRequest) -> World:
    """Every scenario runs in all three worlds."""
    return _world(request.param, request)


@pytest.fixture(params=_SOCKETS)
def way(request: pytest.FixtureRequest) -> World:
    """A world with sockets, for deadlines, keep alive and authentication, which the broker alone does not have."""
    return _world(request.param, request)
