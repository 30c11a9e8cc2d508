"""Front door and core with TLS listeners: real nodes, real sockets, settings and files that change while they serve."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256

from mesh.core.node import CoreNode
from mesh.core.status import CoreStatus
from mesh.edge.node import EdgeNode
from mesh.frontdoor.node import DoorNode
from mesh.frontdoor.status import DoorStatus
from mesh.registry.audit import act
from mesh.registry.bans import Ban, BanStore, normal
from mesh.registry.embedded import EmbeddedEtcd
from mesh.transport.listen import OPTIONAL, REQUIRED, KeyPair
from mesh.wire.encode import encode
from mesh.wire.packets import MQTT5, MQTT311, PUBACK, Connack, Connect, Disconnect, Will
from mesh.wire.properties import Properties
from mesh.wire.reasons import ADMINISTRATIVE_ACTION, BANNED, NOT_AUTHORIZED
from tests.support.bare import Bare
from tests.support.certificates import Authority, put
from tests.support.effects import effect_of
from tests.support.nodes import Nodes, at_once, etcd, publish, subscribed, with_nodes
from tests.support.secured import Secured, alive
from tests.support.tlsclient import Client
from tests.support.waiting import until

__all__ = ["etcd"]  # a fixture


def will(topic: str) -> Will:
    return Will(topic, b"gone", 1, False, Properties())


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_vehicles_and_back_ends_talk_over_tls(etcd: EmbeddedEtcd, tmp_path: Path, kind: str) -> None:
    secured = Secured(tmp_path)

    async def main(mesh: Nodes) -> None:
        plain = await mesh.vehicle("V1")
        await mesh.change(secured.listens(**secured.pair("second", kind=kind)))
        for number, version in enumerate((ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), 2):
            context = secured.context()
            context.minimum_version = context.maximum_version = version
            name = f"V{number}"
            vehicle = await secured.client(mesh, secured.door, name, context)
            await subscribed(vehicle, f"vehicles/{name}/cmd")
            backend = await secured.client(mesh, secured.core, f"app-{number}", context)
            await subscribed(backend, f"vehicles/{name}/data")
            large = bytes(300_000)
            publish(vehicle, f"vehicles/{name}/data", large)
            publish(backend, f"vehicles/{name}/cmd", large)
            await vehicle.acked(PUBACK, [1])
            await backend.acked(PUBACK, [1])
            for client in (vehicle, backend):
                await client.until(client.publishes, "the message")
                assert client.publishes()[0].payload == large
        await alive(plain)

    with_nodes(etcd, main)


def changed(client: Bare) -> None:
    assert not client.closed.is_set(), "a change of a key closes no connection that may stay"


# Keys with other values, and what a client with a certificate and one without get before and after.
KEYS: list[tuple[str, Callable[[Secured], dict[str, Any]], Callable[[Secured], dict[str, Any]], str, str, str, str]] = [
    ("cert", lambda at: {}, lambda at: at.pair("second"), "TLSv1.3 server", "TLSv1.3 server", "TLSv1.3 second",
     "TLSv1.3 second"),
    ("client", lambda at: {"client": OPTIONAL, "ca": at.ca}, lambda at: {"client": REQUIRED, "ca": at.ca},
     "TLSv1.3 server", "TLSv1.3 server", "TLSv1.3 server", ""),
    ("ca", lambda at: {"client": OPTIONAL, "ca": at.ca},
     lambda at: {"client": OPTIONAL, "ca": put(at.folder / "other.pem", Authority("other").pem())},
     "TLSv1.3 server", "TLSv1.3 server", "", "TLSv1.3 server"),
    ("resumption", lambda at: {"min": "1.3"}, lambda at: {"min": "1.3", "resumption": False},
     "TLSv1.3 server", "TLSv1.3 server", "TLSv1.3 server", "TLSv1.3 server"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "old", "new", "with_before", "without_before", "with_after", "without_after"), KEYS,
    ids=[row[0] for row in KEYS],
)  # fmt: skip
@effect_of("tls.cert", "tls.key", "tls.client", "tls.ca", "tls.resumption")
def test_a_key_of_tls_is_for_new_connections(
    etcd: EmbeddedEtcd, tmp_path: Path, key: str, old: Callable[[Secured], dict[str, Any]],
    new: Callable[[Secured], dict[str, Any]], with_before: str, without_before: str, with_after: str,
    without_after: str,
) -> None:  # fmt: skip
    secured = Secured(tmp_path)
    own = secured.authority.issue("V1")

    async def main(mesh: Nodes) -> None:
        known, unknown = secured.context(own), secured.context()
        await mesh.change(secured.listens(**old(secured)))
        before = await secured.client(mesh, secured.door, "V1", known)
        backend = await secured.client(mesh, secured.core, "APP", known)
        for port in (secured.door, secured.core):
            assert [await secured.accepts(one, port) for one in (known, unknown)] == [with_before, without_before]
        if key == "resumption":
            assert await resumes(secured, known)
        await mesh.change(secured.listens(**new(secured)))
        for port in (secured.door, secured.core):
            assert [await secured.accepts(one, port) for one in (known, unknown)] == [with_after, without_after]
        if key == "resumption":
            assert not await resumes(secured, known)
        if key == "ca":  # no authority vouches for them now
            for client in (before, backend):
                assert (await client.wait(Disconnect)).reason == NOT_AUTHORIZED
        else:
            await alive(before, backend)

    with_nodes(etcd, main)


async def resumes(secured: Secured, context: ssl.SSLContext) -> bool:
    """Whether a session is resumed, with TLS 1.3."""
    def both() -> bool:
        first = Client(secured.door, context)
        first.socket.sendall(CONNECT)
        first.socket.recv(100)
        session = first.socket.session
        first.close()
        second = Client(secured.door, context, session)
        reused = bool(second.socket.session_reused)
        second.close()
        return reused

    return await asyncio.to_thread(both)


@effect_of("tls.more", "tls.min", "tls.ciphers")
def test_further_certificates_versions_and_ciphers_are_for_new_connections(
    etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    secured = Secured(tmp_path)
    second = secured.authority.issue("second", dns=["localhost"], kind="rsa", server=True)
    more = (KeyPair(*second.write(tmp_path, "second")),)

    async def main(mesh: Nodes) -> None:
        await mesh.change(secured.listens())
        old = secured.context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        rsa, chacha = secured.context(), secured.context()
        for context, ciphers in ((rsa, "ECDHE-RSA-AES256-GCM-SHA384"), (chacha, "ECDHE-ECDSA-CHACHA20-POLY1305")):
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
        clients = [await secured.client(mesh, secured.door, "V1", old)]
        assert [await secured.accepts(one) for one in (old, rsa, chacha)] == ["TLSv1.2 server", "", "TLSv1.2 server"]
        await mesh.change(secured.listens(more=more))
        assert [await secured.accepts(one) for one in (old, rsa)] == ["TLSv1.2 server", "TLSv1.2 second"]
        clients.append(await secured.client(mesh, secured.door, "V2", rsa))
        await mesh.change(secured.listens(ciphers="ECDHE+AESGCM"))
        assert [await secured.accepts(one) for one in (old, chacha)] == ["TLSv1.2 server", ""]
        await mesh.change(secured.listens(min="1.3"))
        assert [await secured.accepts(one) for one in (old, secured.context())] == ["", "TLSv1.3 server"]
        await alive(*clients)

    with_nodes(etcd, main)


@pytest.mark.parametrize("way", ["file", "key"])
@effect_of("tls.crl")
def test_revoked_clients_are_told_and_end_with_their_wills_and_others_stay(
    etcd: EmbeddedEtcd, tmp_path: Path, way: str
) -> None:
    secured = Secured(tmp_path)
    bad = [secured.authority.issue(f"V{number}") for number in (1, 2, 3)]
    good = secured.authority.issue("V4")
    revoked = secured.authority.revoke(*[one.certificate for one in bad])

    async def main(mesh: Nodes) -> None:
        settings = {"client": REQUIRED, "ca": secured.ca}
        await mesh.change(secured.listens(**settings, crl=secured.crl))
        watcher = await mesh.backend("watcher", "vehicles/+/will", "apps/will")
        modern = await secured.client(
            mesh, secured.door, "V1", secured.context(bad[0]), will=will("vehicles/V1/will")
        )
        legacy = await secured.client(
            mesh, secured.door, "V2", secured.context(bad[1]), MQTT311, will=will("vehicles/V2/will")
        )
        backend = await secured.client(mesh, secured.core, "APP", secured.context(bad[2]), will=will("apps/will"))
        stays = await secured.client(mesh, secured.door, "V4", secured.context(good), will=will("vehicles/V4/will"))
        if way == "file":
            put(secured.crl, revoked)
        else:
            await mesh.change(secured.listens(**settings, crl=put(tmp_path / "new.pem", revoked)))
        for client in (modern, legacy, backend):
            await client.wait_closed()
        for client in (modern, backend):
            assert (await client.wait(Disconnect)).reason == NOT_AUTHORIZED
        assert not [packet for packet in legacy.packets if isinstance(packet, Disconnect)]
        await watcher.until(lambda: len(watcher.publishes()) >= 3, "three wills")
        assert {one.topic for one in watcher.publishes()} == {"vehicles/V1/will", "vehicles/V2/will", "apps/will"}
        assert await secured.accepts(secured.context(bad[0])) == ""
        assert await secured.accepts(secured.context(good)) == "TLSv1.3 server"
        await alive(stays, watcher)

    with_nodes(etcd, main)


def test_a_revoked_vehicle_ends_also_while_its_edge_is_down(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    secured = Secured(tmp_path)
    bad, good = secured.authority.issue("V1"), secured.authority.issue("V2")

    async def main(mesh: Nodes) -> None:
        await mesh.change(secured.listens(client=REQUIRED, ca=secured.ca, crl=secured.crl))
        ends = await secured.client(mesh, secured.door, "V1", secured.context(bad))
        stays = await secured.client(mesh, secured.door, "V2", secured.context(good))
        await mesh.edge.stop(0.2)
        put(secured.crl, secured.authority.revoke(bad.certificate))
        await ends.wait_closed()
        assert (await ends.wait(Disconnect)).reason == NOT_AUTHORIZED
        assert await secured.accepts(secured.context(bad)) == ""
        await alive(stays)

    with_nodes(etcd, main)


def test_the_status_names_files_that_cannot_be_used(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    secured = Secured(tmp_path)

    async def main(mesh: Nodes) -> None:
        await mesh.change(secured.listens())
        assert (mesh.door.status().detail, mesh.core.status().detail) == ("", "")
        put(secured.spec.key, b"nothing")
        for node in (mesh.door, mesh.core):
            await until(lambda node=node: "not a private key" in node.status().detail)
        await alive(await secured.client(mesh, secured.door, "V1", secured.context()))

    with_nodes(etcd, main)


def test_a_change_that_names_a_wrong_file_is_not_prepared(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    secured = Secured(tmp_path)

    async def main(mesh: Nodes) -> None:
        await mesh.change(secured.listens())
        kept, before = mesh.topology, mesh.door.in_force()
        with pytest.raises(OSError, match="no such file"):
            await mesh.change(secured.listens(cert=tmp_path / "none.pem"))
        mesh.topology = kept
        assert mesh.door.in_force() == before
        assert await secured.accepts(secured.context()) == "TLSv1.3 server"

    with_nodes(etcd, main)


CONNECT = bytes.fromhex("10 10 0004 4d515454 04 82 003c 0002 5639 0002 5639".replace(" ", ""))  # of vehicle V9


def test_a_banned_address_costs_no_handshake_and_is_told_at_a_listener_without_tls(
    etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    secured = Secured(tmp_path)

    async def main(mesh: Nodes) -> None:
        await mesh.change(secured.listens())
        context = secured.context()
        assert mesh.door._services is not None
        store = BanStore(mesh.door._services.client, mesh.topology.mesh)
        ban = Ban("address", normal("address", "127.0.0.0/8"), "a flood", "me@here", time.time())
        await store.add(ban, act("test", "a ban"))
        try:
            nodes: tuple[DoorNode | CoreNode, ...] = (mesh.door, mesh.core)
            await until(lambda: all(len(node._bans) for node in nodes), "the ban at both nodes")
            for node, port in zip(nodes, (secured.door, secured.core), strict=True):
                begun = handshakes(node)
                assert await secured.accepts(context, port) == ""
                refused = node.status()
                assert isinstance(refused, DoorStatus | CoreStatus)
                assert (handshakes(node), refused.bans.refused) == (begun, 1)
            told = await Bare(MQTT5).connect(mesh.vehicles)
            mesh.clients.append(told)
            told.send(Connect(MQTT5, "V1", username="V1"))
            assert (await told.wait(Connack)).reason == BANNED
        finally:
            await store.remove("address", ban.value, act("test", "no ban"))
        await until(lambda: not len(mesh.door._bans), "the end of the ban")
        assert await secured.accepts(context, secured.door)

    with_nodes(etcd, main)


@pytest.mark.parametrize("anonymous", [False, True])
def test_an_address_that_guesses_costs_no_handshake_where_only_passwords_are_taken(
    etcd: EmbeddedEtcd, tmp_path: Path, anonymous: bool
) -> None:
    secured = Secured(tmp_path)

    async def main(mesh: Nodes) -> None:
        await mesh.change(secured.listens())
        await mesh.change(
            lambda topology: replace(topology, backends=replace(topology.backends, anonymous=anonymous))
        )
        context = secured.context()

        async def guess(number: int) -> int:
            """The answer to a wrong password; -1 if there is no handshake."""
            client = Bare(MQTT5)
            client.tls = context
            mesh.clients.append(client)
            try:
                await client.connect(secured.core)
            except (ssl.SSLError, ConnectionError):
                return -1
            client.send(Connect(MQTT5, "guesser", username=f"user-{number}", password=b"wrong"))
            return (await client.wait(Connack)).reason

        wrong = mesh.topology.limits.wrong_passwords
        # Who is known to no other provider is anonymous, and has not guessed.
        assert [await guess(number) for number in range(wrong)] == [0 if anonymous else 0x86] * wrong
        begun = handshakes(mesh.core)
        assert (await guess(wrong), handshakes(mesh.core) - begun) == ((0, 1) if anonymous else (-1, 0))
        status = mesh.core.status()
        assert isinstance(status, CoreStatus)
        assert status.providers[0].denied == (0 if anonymous else 1)

    with_nodes(etcd, main)


def handshakes(node: DoorNode | CoreNode) -> int:
    """How many TLS handshakes of clients have begun at a node."""
    status = node.status()
    assert isinstance(status, DoorStatus | CoreStatus)
    sockets = (status.door.clients,) if isinstance(status, DoorStatus) else status.clients
    return sum(one.tls.begun for socket in sockets for one in socket.listeners if one.tls is not None)


@pytest.mark.parametrize("kind", ["serial", "fingerprint"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_banned_certificate_ends_connections_and_is_refused_when_new_and_when_it_resumes(
    etcd: EmbeddedEtcd, tmp_path: Path, kind: str, version: ssl.TLSVersion
) -> None:
    secured = Secured(tmp_path)

    async def main(mesh: Nodes) -> None:
        await mesh.change(secured.listens(client=REQUIRED, ca=secured.ca))
        thief, other = secured.authority.issue("thief"), secured.authority.issue("other")
        stays = await secured.client(mesh, secured.door, "V1", secured.context(other))
        context = secured.context(thief)
        context.minimum_version = context.maximum_version = version
        goes = await secured.client(mesh, secured.door, "V2", context)

        def answer(session: ssl.SSLSession | None) -> tuple[bool, bytes, ssl.SSLSession | None]:
            """Whether a connection resumes ``session``, what answers its CONNECT, and its own session."""
            client = Client(secured.door, context, session)
            try:
                client.socket.sendall(encode(Connect(MQTT5, "V3", username="V3"), MQTT5))
                packet = client.socket.recv(1000)
                return bool(client.socket.session_reused), packet, client.socket.session
            finally:
                client.close()

        _, accepted, session = await asyncio.to_thread(answer, None)
        assert accepted[3] == 0
        certificate = thief.certificate
        digits = f"{certificate.serial_number:040X}" if kind == "serial" else certificate.fingerprint(SHA256()).hex(":")
        assert mesh.door._services is not None
        store = BanStore(mesh.door._services.client, mesh.topology.mesh)
        ban = Ban(kind, normal(kind, digits), "stolen", "me@here", time.time())
        await store.add(ban, act("test", "a ban"))
        try:
            assert (await goes.wait(Disconnect)).reason == ADMINISTRATIVE_ACTION
            await goes.wait_closed()
            for resumed in (False, True):
                reused, refused, _ = await asyncio.to_thread(answer, session if resumed else None)
                assert (reused, refused[3]) == (resumed, BANNED)
            await alive(stays)
        finally:
            await store.remove(kind, ban.value, act("test", "no ban"))

    with_nodes(etcd, main)


@pytest.mark.parametrize("kind", ["serial", "fingerprint"])
def test_no_will_of_a_banned_certificate_is_published_although_its_door_ends_before_its_edge_is_back(
    etcd: EmbeddedEtcd, tmp_path: Path, kind: str
) -> None:
    secured = Secured(tmp_path)

    async def main(mesh: Nodes) -> None:
        await mesh.change(secured.listens(client=REQUIRED, ca=secured.ca))
        watcher = await mesh.backend("watcher", "vehicles/+/will")
        thief, other = secured.authority.issue("thief"), secured.authority.issue("other")
        clients = []
        for name, issued in (("V1", thief), ("V2", other)):
            gone = Will(f"vehicles/{name}/will", name.encode(), 1)
            clients.append(await secured.client(mesh, secured.door, name, secured.context(issued), will=gone))
        await mesh.edge.stop(0.2)
        certificate = thief.certificate
        digits = f"{certificate.serial_number:x}" if kind == "serial" else certificate.fingerprint(SHA256()).hex()
        assert mesh.core._services is not None
        store = BanStore(mesh.core._services.client, mesh.topology.mesh)
        ban = Ban(kind, normal(kind, digits), "stolen", "me@here", time.time())
        await store.add(ban, act("test", "a ban"))
        try:
            await clients[0].wait_closed()
            await mesh.door.stop(0.2)
            mesh.edge, mesh.door = EdgeNode(mesh.config("edge-1")), DoorNode(mesh.config("door"))
            with at_once():
                await mesh.edge.start()
                await mesh.door.start()
            await until(lambda: b"V2" in [one.payload for one in watcher.publishes()], "the other will")
            last = await mesh.vehicle("V3")
            publish(last, "vehicles/V3/will", b"the end")
            await until(lambda: b"the end" in [one.payload for one in watcher.publishes()], "the end")
            assert [one.payload for one in watcher.publishes()] == [b"V2", b"the end"]
        finally:
            await store.remove(kind, ban.value, act("test", "no ban"))

    with_nodes(etcd, main, limits="{attach_grace: 1s}")
