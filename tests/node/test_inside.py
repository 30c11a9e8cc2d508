"""TLS inside the mesh: links, metrics and the console want certificates of the mesh's authority at both ends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mesh.broker.peer import TlsFacts
from mesh.console.node import ConsoleNode
from mesh.node.config import NodeConfig
from mesh.node.metrics import Metrics
from mesh.pki.folder import INTERNAL, Folder
from mesh.pki.signing import ECDSA
from mesh.policy.secrets import MeshSecret
from mesh.registry.embedded import EmbeddedEtcd
from mesh.topology.load import loads
from mesh.topology.mistakes import TopologyErrors
from mesh.topology.nodes import spec_of
from mesh.topology.topology import InternalTlsSpec
from mesh.topology.units import Address
from tests.support.nodes import TEXT, Nodes, etcd, publish, with_nodes
from tests.support.waiting import PATIENCE, until

__all__ = ["etcd"]  # a fixture

NAMES = ("edge-1", "core", "door", "console", "operator")


@pytest.fixture
def certs(tmp_path: Path) -> Folder:
    return authority(tmp_path / "certs")


def authority(path: Path) -> Folder:
    folder = Folder(path)
    folder.create("test authority", ECDSA)
    for name in NAMES:
        folder.issue(INTERNAL, name, [name, "127.0.0.1"])
    return folder


def section(certs: Folder) -> str:
    own = certs.path / "internal" / "{node}"
    return f"internal: {{tls: {{ca: {certs.path}/ca.pem, cert: '{own}.pem', key: '{own}.key'}}}}\n"


@pytest.fixture(autouse=True)
def over_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    """As between two machines."""
    monkeypatch.setattr("mesh.node.config.socket_path", lambda *_: "")


def context(certs: Folder, name: str = "operator") -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=certs.path / "ca.pem")
    if name:
        made.load_cert_chain(certs.file(INTERNAL, name), certs.file(INTERNAL, name, "key"))
    return made


def links(mesh: Nodes) -> list[TlsFacts | None]:
    """The facts of all links at the edge."""
    assert mesh.edge._devices is not None
    assert mesh.edge._cores is not None
    groups = (mesh.edge._devices.group, mesh.edge._cores.group)
    return [stream.peer.tls for group in groups for stream in group.streams]


def serials(mesh: Nodes) -> set[str]:
    return {facts.serial for facts in links(mesh) if facts is not None}


def serial(certs: Folder, name: str) -> str:
    found = next(one.certificate for one in certs.in_use() if one.label == f"internal/{name}")
    assert found is not None
    return f"{found.serial_number:x}"


async def hello(port: int, tls: ssl.SSLContext | None) -> bytes:
    """What a port answers to some bytes; empty if it closes the connection."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
            writer.write(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
            try:
                return await reader.read(100)
            finally:
                writer.close()
    except OSError:
        return b""


def ports(mesh: Nodes) -> tuple[int, int]:
    assert mesh.edge._devices is not None
    assert mesh.edge._cores is not None
    return mesh.edge._devices.port, mesh.edge._cores.ports[0]


def test_links_have_tls_at_both_ends_and_carry_messages(etcd: EmbeddedEtcd, certs: Folder) -> None:
    async def main(mesh: Nodes) -> None:
        vehicle = await mesh.vehicle("CAR-1", "vehicles/CAR-1/cmd")
        backend = await mesh.backend("sender")
        publish(backend, "vehicles/CAR-1/cmd", b"go")
        await until(lambda: [one.payload for one in vehicle.publishes()] == [b"go"], "the command")
        assert serials(mesh) == {serial(certs, "door"), serial(certs, "core")}
        assert None not in links(mesh)

    with_nodes(etcd, main, section(certs))


def test_who_shows_no_certificate_of_the_authority_is_refused(
    etcd: EmbeddedEtcd, certs: Folder, tmp_path: Path
) -> None:
    stranger = context(authority(tmp_path / "other"))
    stranger.load_verify_locations(certs.path / "ca.pem")

    async def main(mesh: Nodes) -> None:
        _, tier = ports(mesh)
        for port in ports(mesh):
            assert await hello(port, None) == b""
            assert await hello(port, context(certs, "")) == b""
            assert await hello(port, stranger) == b""
        # With a certificate, but without the mesh secret: the answer to CONNECT is a refusal.
        assert (await hello(tier, context(certs)))[:1] == b"\x20"

    with_nodes(etcd, main, section(certs))


def test_a_node_does_not_talk_to_an_edge_of_another_authority(
    etcd: EmbeddedEtcd, certs: Folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The edge's files are exchanged for those of another authority; its links are lost, and none comes back."""
    other = authority(tmp_path / "other")

    async def main(mesh: Nodes) -> None:
        assert mesh.core._links["edge-1"].up
        for suffix in ("pem", "key"):
            other.file(INTERNAL, "edge-1", suffix).rename(certs.file(INTERNAL, "edge-1", suffix))
        await until(lambda: "certificates read again" in caplog.text, "the edge has the files")
        mesh.core._links["edge-1"].abort()
        await until(lambda: "certificate verify failed" in mesh.core._diallers["edge-1"].trouble, "the core refuses it")
        assert not mesh.core._links["edge-1"].up

    caplog.set_level("INFO")
    with_nodes(etcd, main, section(certs))


def test_renewed_certificates_are_for_new_links_and_close_none(etcd: EmbeddedEtcd, certs: Folder) -> None:
    async def main(mesh: Nodes) -> None:
        vehicle = await mesh.vehicle("CAR-1", "vehicles/CAR-1/cmd")
        backend = await mesh.backend("sender")
        before = serials(mesh)
        certs.renew(timedelta(0), [f"internal/{name}" for name in NAMES])
        new = {serial(certs, "door"), serial(certs, "core")}
        assert not new & before
        publish(backend, "vehicles/CAR-1/cmd", b"one")
        await until(lambda: len(vehicle.publishes()) == 1, "the command over the old links")
        assert serials(mesh) == before
        assert mesh.edge._devices is not None
        assert mesh.edge._cores is not None
        for group in (mesh.edge._devices.group, mesh.edge._cores.group):
            for stream in list(group.streams):
                stream.abort()
        await until(lambda: serials(mesh) == new, "the links are back with the new certificates")
        await until(lambda: mesh.core._links["edge-1"].up, "the core's link")
        publish(backend, "vehicles/CAR-1/cmd", b"two", 2)
        await until(lambda: len(vehicle.publishes()) == 2, "the command over the new links")

    with_nodes(etcd, main, section(certs))


def test_files_that_cannot_be_used_leave_the_old_ones_in_force(
    etcd: EmbeddedEtcd, certs: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(mesh: Nodes) -> None:
        certs.file(INTERNAL, "core").write_text("broken")
        mesh.core._links["edge-1"].abort()
        await until(lambda: "the old ones stay in force" in caplog.text, "the fault is logged")
        await until(lambda: mesh.core._links["edge-1"].up, "the link is back")

    with_nodes(etcd, main, section(certs))


async def fetched(url: str, tls: ssl.SSLContext) -> str:
    async with aiohttp.ClientSession() as session, session.get(url, ssl=tls) as answer:
        assert answer.status == 200
        return await answer.text()


async def refused(url: str, tls: ssl.SSLContext) -> bool:
    try:
        await fetched(url, tls)
    except (aiohttp.ClientError, ssl.SSLError):
        return True
    return False


def test_metrics_want_a_certificate(etcd: EmbeddedEtcd, certs: Folder) -> None:
    async def main(mesh: Nodes) -> None:
        place = mesh.edge.status().metrics
        assert "mesh_sessions" in await fetched(f"https://{place}/metrics", context(certs))
        assert await refused(f"https://{place}/metrics", context(certs, ""))
        assert await hello(int(place.rpartition(":")[2]), None) == b""
        await served_renewed(certs, "edge-1", int(place.rpartition(":")[2]))

    with_nodes(etcd, main, section(certs) + "telemetry: {prometheus: '127.0.0.1:0'}\n")


def test_metrics_are_never_served_without_the_certificates_that_they_should_have(
    etcd: EmbeddedEtcd, certs: Folder
) -> None:
    async def main(mesh: Nodes) -> None:
        certs.file(INTERNAL, "door").write_text("broken")
        metrics = Metrics(mesh.config("door"), mesh.door.status)
        await metrics.open()
        assert metrics.address == ""
        with pytest.raises(OSError, match=r"door\.pem"):
            await metrics.open_own()
        await metrics.close()

    with_nodes(etcd, main, section(certs) + "telemetry: {prometheus: '127.0.0.1:0'}\n")


async def served_renewed(certs: Folder, name: str, port: int) -> None:
    """A server shows its renewed certificate to new connections."""
    certs.renew(timedelta(0), [f"internal/{name}"])
    async with asyncio.timeout(PATIENCE):
        while await shown(port, context(certs)) != serial(certs, name):
            await asyncio.sleep(0.05)


async def shown(port: int, tls: ssl.SSLContext) -> str:
    """The serial number of a server's certificate."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    found: dict[str, Any] = writer.get_extra_info("peercert")
    writer.close()
    return f"{int(found['serialNumber'], 16):x}"


def test_the_console_wants_a_certificate(etcd: EmbeddedEtcd, certs: Folder) -> None:
    async def main(mesh: Nodes) -> None:
        topology = replace(mesh.topology, mesh="inside", console=Address("127.0.0.1", 0))
        spec = spec_of(topology, "console")
        assert spec is not None
        folder = mesh.topology.data / "inside"
        folder.mkdir(mode=0o700, exist_ok=True)
        node = ConsoleNode(NodeConfig(topology, spec, (mesh.endpoint,), folder, MeshSecret(b"s" * 32)), topology.data)
        try:
            await node.start()
            url = f"https://127.0.0.1:{node.port}/healthz"
            await fetched(url, context(certs))
            assert await refused(url, context(certs, ""))
            assert await hello(node.port, None) == b""
            await served_renewed(certs, "console", node.port)
        finally:
            await node.stop(2.0)

    with_nodes(etcd, main, section(certs))


Check = Callable[[Folder], None]


def _missing(certs: Folder) -> None:
    certs.file(INTERNAL, "core").unlink()


def _open(certs: Folder) -> None:
    certs.file(INTERNAL, "core", "key").chmod(0o644)


def _other(certs: Folder) -> None:
    certs.file(INTERNAL, "door", "key").rename(certs.file(INTERNAL, "core", "key"))


@pytest.mark.parametrize(
    ("change", "says"), [(_missing, "core.pem"), (_open, "chmod 600"), (_other, "does not fit the certificate")]
)
def test_check_names_a_file_that_cannot_be_used(certs: Folder, tmp_path: Path, change: Check, says: str) -> None:
    text = TEXT + section(certs)
    topology = loads(text.encode(), "mesh.yaml", tmp_path)
    assert topology.internal == InternalTlsSpec(
        ca=certs.path / "ca.pem",
        cert=certs.path / "internal" / "{node}.pem",
        key=certs.path / "internal" / "{node}.key",
    )
    change(certs)
    with pytest.raises(TopologyErrors, match=says):
        loads(text.encode(), "mesh.yaml", tmp_path)
