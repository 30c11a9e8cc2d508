"""One real etcd for each test file, and a separate mesh for each test."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.registry.embedded import EmbeddedEtcd

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path_factory.mktemp("etcd"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def etcd(running: EmbeddedEtcd) -> EmbeddedEtcd:
    """A running etcd, restarted if an earlier test stopped it."""
    asyncio.run(running.start())
    return running


@pytest.fixture
def mesh() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "etcd"
