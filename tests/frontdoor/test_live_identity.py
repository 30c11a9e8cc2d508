"""Who vehicles are, while that changes: providers, their files, and what is bound to an identity.

Door, edge and core are real, over real sockets.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.frontdoor.context import DoorSettings
from mesh.policy.hashes import Cost, make_hash
from mesh.policy.passwordfile import write_passwords
from mesh.policy.scram import SCRAM_SHA_256, make_verifier, write_line
from mesh.registry.embedded import EmbeddedEtcd
from mesh.topology.provider import ProviderSpec
from mesh.topology.topology import ListenerSpec
from mesh.topology.units import Address
from mesh.wire.packets import (
    MQTT5,
    MQTT311,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Will,
)
from mesh.wire.properties import Properties
from mesh.wire.reasons import BAD_AUTHENTICATION_METHOD as NO_METHOD
from mesh.wire.reasons import (
    CLIENT_IDENTIFIER_NOT_VALID,
    CONTINUE_AUTHENTICATION,
    NOT_AUTHORIZED,
)
from tests.fakes.mesh import FakeMesh
from tests.frontdoor.live_door import alive, doors, knock
from tests.support.bare import Bare
from tests.support.effects import effect_of
from tests.support.loop import run
from tests.support.nodes import Change, Nodes, etcd, with_nodes
from tests.support.ports import free_port
from tests.support.scram_client import ScramClient
from tests.support.waiting import until

__all__ = ["etcd"]  # a fixture


def identity(**values: Any) -> Change:
    return lambda topology: replace(topology, identity=replace(topology.identity, **values))


def proving(file: Path) -> ProviderSpec:
    return ProviderSpec(name="scram", scram=file)


async def prove(mesh: Nodes, name: str, password: str, port: int = 0) -> Bare:
    """A vehicle that proves its identity by SCRAM; the caller looks at the answer."""
    client, exchange = Bare(MQTT5), ScramClient(name, password)
    mesh.clients.append(client)
    await client.connect(port or mesh.vehicles)
    client.send(Connect(MQTT5, name, properties=proof(exchange.first())))
    await client.until(lambda: bool(client.packets) or client.closed.is_set(), "an answer")
    if isinstance(client.packets[0], Auth):
        asked = client.packets[0].properties
        assert asked is not None
        client.send(Auth(CONTINUE_AUTHENTICATION, proof(exchange.final(asked.auth_data or b""))))
    return client


def proof(data: bytes) -> Properties:
    properties = Properties()
    properties.auth_method, properties.auth_data = SCRAM_SHA_256, data
    return properties


async def admitted(client: Bare) -> int:
    """The reason code of the CONNACK."""
    return (await client.wait(Connack)).reason


async def ended(client: Bare) -> list[int]:
    """The reason codes of the DISCONNECTs with which a connection ended."""
    await client.wait_closed()
    return [packet.reason for packet in client.packets if isinstance(packet, Disconnect)]


@effect_of("identity.providers")
def test_another_chain_ends_the_connections_that_it_would_not_have_admitted(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    file = tmp_path / "vehicles.scram"
    file.write_text(f"{write_line('PROVER', make_verifier('right'))}\n{write_line('GONE', make_verifier('right'))}\n")

    async def main(mesh: Nodes) -> None:
        word, will = await mesh.vehicle("WORD"), await mesh.backend("wills", "vehicles/+/gone")
        scram, anyone = proving(file), ProviderSpec(name="anonymous")
        assert await admitted(await prove(mesh, "PROVER", "right")) == NO_METHOD
        await mesh.change(identity(providers=(scram, anyone)))
        prover, gone = await prove(mesh, "PROVER", "right"), await prove(mesh, "GONE", "right")
        assert (await admitted(prover), await admitted(gone)) == (0, 0)
        assert await admitted(await prove(mesh, "PROVER", "wrong")) == NOT_AUTHORIZED
        mortal = await mesh_will(mesh, "MORTAL")
        await alive(word, prover, gone)
        await mesh.change(identity(providers=(scram,)))
        assert await ended(word) == [NOT_AUTHORIZED]
        assert await ended(mortal) == [NOT_AUTHORIZED]
        await will.until(lambda: bool(will.publishes()), "the will")
        assert await admitted(await knock(mesh, "c", "WORD")) == NO_METHOD
        old = await knock(mesh, "c3", "WORD", MQTT311)
        assert await admitted(old) == 5
        file.write_text(file.read_text().splitlines()[0] + "\n")
        assert await ended(gone) == [NOT_AUTHORIZED]
        await alive(prover)
        await mesh.change(identity(providers=(anyone,)))
        assert await ended(prover) == [NOT_AUTHORIZED]
        await mesh.vehicle("PROVER")

    with_nodes(etcd, main)


async def mesh_will(mesh: Nodes, name: str) -> Bare:
    client = Bare(MQTT5)
    mesh.clients.append(client)
    return await client.hello(mesh.vehicles, name, will=Will(f"vehicles/{name}/gone", b"x", 1, False))


def test_a_changed_file_of_passwords_ends_the_connections_of_its_users_and_no_others(
    etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    file, quick = tmp_path / "passwords.txt", Cost(1, 8)
    hashes = {f"V{number}": make_hash(b"right", quick) for number in range(1000)}
    write_passwords(file, hashes)

    async def log_in(mesh: Nodes, name: str, password: bytes) -> Bare:
        client = await Bare(MQTT5).connect(mesh.vehicles)
        mesh.clients.append(client)
        client.send(Connect(MQTT5, name, username=name, password=password))
        return client

    async def main(mesh: Nodes) -> None:
        await mesh.change(identity(providers=(ProviderSpec(name="file", passwords=file),)))
        fleet = dict[str, Bare]()
        for name in hashes:
            fleet[name] = await log_in(mesh, name, b"right")
            assert await admitted(fleet[name]) == 0
        assert await admitted(await log_in(mesh, "V1", b"wrong")) == 0x86
        assert await admitted(await log_in(mesh, "STRANGER", b"right")) == 0x86
        gone = [f"V{number}" for number in range(0, 1000, 10)]
        changed = [f"V{number}" for number in range(5, 1000, 10)]
        after = {name: hash for name, hash in hashes.items() if name not in gone}
        write_passwords(file, after | {name: make_hash(b"new", quick) for name in changed})
        for name in (*gone, *changed):
            assert await ended(fleet.pop(name)) == [NOT_AUTHORIZED]
        await alive(*fleet.values())
        assert await admitted(await log_in(mesh, "V5", b"right")) == 0x86
        assert await admitted(await log_in(mesh, "V5", b"new")) == 0
        file.write_text("nonsense")
        await alive(*fleet.values())
        assert await admitted(await log_in(mesh, "V1", b"right")) == 0

    with_nodes(etcd, main)


@effect_of("identity.client_ids")
def test_client_ids_are_bound_to_the_vehicle(etcd: EmbeddedEtcd) -> None:
    async def main(mesh: Nodes) -> None:
        free = await mesh.vehicle("FREE")
        await mesh.change(identity(client_ids=("{vehicle}", "{vehicle}-*")))
        await alive(free)
        for protocol, reason in ((MQTT5, CLIENT_IDENTIFIER_NOT_VALID), (MQTT311, 2)):
            for client_id, expected in (("V1", 0), ("V1-hu", 0), ("V2", reason), ("", reason)):
                assert await admitted(await knock(mesh, client_id, "V1", protocol)) == expected
        await mesh.change(identity(client_ids=()))
        assert await admitted(await knock(mesh, "V2", "V1")) == 0

    with_nodes(etcd, main)


def test_each_listener_asks_the_providers_that_it_names(etcd: EmbeddedEtcd, tmp_path: Path) -> None:
    file, port = tmp_path / "vehicles.scram", free_port()
    file.write_text(f"{write_line('PROVER', make_verifier('right'))}\n")

    async def main(mesh: Nodes) -> None:
        await mesh.change(identity(providers=(proving(file), ProviderSpec(name="anonymous"))))
        present, strict = mesh.topology.front_doors[0].listen[0], ListenerSpec(
            kind="mqtt", address=Address("127.0.0.1", port), identify=("scram",)
        )  # fmt: skip
        await mesh.change(doors(listen=(present, strict)))
        prover = await prove(mesh, "PROVER", "right", port)
        assert (await admitted(prover), await admitted(await knock(mesh, "c", "V1"))) == (0, 0)
        client = await Bare(MQTT5).connect(port)
        client.send(Connect(MQTT5, "c", username="V1"))
        assert await admitted(client) == NO_METHOD
        await mesh.change(doors(listen=(present, replace(strict, identify=("anonymous",)))))
        assert await ended(prover) == [NOT_AUTHORIZED]
        assert await admitted(await prove(mesh, "PROVER", "right", port)) == NO_METHOD

    with_nodes(etcd, main)


@effect_of("identity.set_username")
@pytest.mark.parametrize("protocol", [MQTT311, MQTT5])
def test_the_edge_gets_the_identity_as_user_name_and_never_the_password(protocol: int) -> None:
    async def main() -> None:
        async with FakeMesh() as mesh:
            for settings in (DoorSettings(), DoorSettings(set_username=True)):
                admission = mesh.admission
                mesh.door.take(settings, admission.limits, 10, "")
                await until(lambda: mesh.door._context.settings is settings, "the settings")  # noqa: B023
                client = await Bare(protocol).connect(mesh.port)
                client.send(Connect(protocol, "c", username="V1", password=b"secret"))
                assert await admitted(client) == 0
                await client.close()
            mesh.identity = "CAR-1"
            client = await Bare(protocol).connect(mesh.port)
            client.send(Connect(protocol, "c"))
            assert await admitted(client) == 0
            found = [(connect.username, connect.password) for connect in mesh.edge.engine.connects]
            assert found == [("V1", None), ("V1", None), ("CAR-1", None)]
            await client.close()

    run(main())


def test_a_door_agrees_to_no_verifiers_without_which_it_could_not_start_again(
    etcd: EmbeddedEtcd, tmp_path: Path
) -> None:
    async def main(mesh: Nodes) -> None:
        was = mesh.door.in_force()
        mesh.topology = replace(
            mesh.topology, identity=replace(mesh.topology.identity, providers=(proving(tmp_path / "absent"),))
        )  # fmt: skip
        with pytest.raises(OSError, match="absent"):
            await mesh.door.prepare(mesh.config("door"))
        assert mesh.door.in_force() == was

    with_nodes(etcd, main)
