"""Which listener and which credentials a command uses, and what it says if it has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.cli.client import ClientRefused, ClientTarget, target
from mesh.policy.scram import make_verifier, write_line
from mesh.topology.load import load, loads
from tests.support.examples import example, prepared

CORE = 'cores: [{name: core, listen: [{mqtt: "127.0.0.1:1884"}]}]\n'
POOL = "pools: [{name: standard, edges: [{name: edge-1}]}]\n"
DOOR = 'front_doors: [{name: door, listen: [{mqtt: "0.0.0.0:1883", identify: [scram]}, {mqtt: "0.0.0.0:1885"}]}]\n'
PROVIDERS = "identity: {providers: [{name: scram, scram: v.scram}, anonymous]}\n"


def found(folder: Path, rest: str, vehicle: str | None = None, user: str | None = None) -> ClientTarget:
    (folder / "v.scram").write_text(write_line("V1", make_verifier("x", 1)))
    return target(loads(f"mesh: demo\n{CORE}{POOL}{rest}".encode(), "t.yaml", folder), vehicle, user, None, "pub")


def test_a_vehicle_uses_a_plain_listener_that_takes_its_word(tmp_path: Path) -> None:
    place = found(tmp_path, DOOR + PROVIDERS, vehicle="V1")
    assert (place.host, place.port, place.username) == ("127.0.0.1", 1885, "V1")


def test_vehicles_that_have_to_prove_who_they_are_are_left_to_their_own_clients(tmp_path: Path) -> None:
    with pytest.raises(ClientRefused, match=r"prove who they are \(identity.providers: certificate\)"):
        target(load(prepared(example("client-certificates.yaml"), tmp_path)), "VIN-1", None, None, "pub")


def test_a_listener_with_tls_is_not_spoken_to_in_the_clear(tmp_path: Path) -> None:
    door = DOOR.replace('{mqtt: "0.0.0.0:1885"}', '{ws: "0.0.0.0:1885"}')
    with pytest.raises(ClientRefused, match=r'no listener takes it .*ws://0\.0\.0\.0:1885.*add one on this machine'):
        found(tmp_path, door + PROVIDERS, vehicle="V1")


@pytest.mark.parametrize("user", [None, "app"])
def test_a_back_end_needs_a_password_that_the_topology_has(tmp_path: Path, user: str | None) -> None:
    backends = "backends: {providers: [{name: apps, scram: v.scram}]}\n"
    with pytest.raises(ClientRefused, match=r"its backends\.users are none"):
        found(tmp_path, DOOR + PROVIDERS + backends, user=user)
