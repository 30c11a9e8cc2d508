"""What is allowed and dangerous is named, with what would prevent it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.topology.load import load, loads
from mesh.topology.provider import ProviderSpec
from mesh.topology.warnings import warnings
from tests.support.examples import example, prepared
from tests.topology.small import CORE, DOOR, POOL, SMALL

OPEN_CORE = 'cores: [{name: core, listen: [{mqtt: "0.0.0.0:1884"}]}]\n'
USERS = "backends: {users: [{user: fleet, password: {env: FLEET}}]}\n"


def warned(text: str) -> list[str]:
    return warnings(loads(text.encode(), "t.yaml", Path("/")))


def test_a_mesh_of_this_machine_has_no_warning() -> None:
    assert warned(SMALL) == []
    assert warned(f'{SMALL}console: "127.0.0.1:8080"\n') == []


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "10.0.0.5:8080", "[::]:8080"])
def test_a_console_that_other_machines_reach_has_no_login(address: str) -> None:
    (text,) = warned(f'{SMALL}console: "{address}"\n')
    assert text.startswith("console: the console has no login")
    assert address in text


@pytest.mark.parametrize(
    ("providers", "listen", "open"),
    [
        ("[anonymous]", '{mqtt: "0.0.0.0:1883"}', True),
        ("[anonymous]", '{mqtt: "127.0.0.1:1883"}', False),
        ("[{name: cert, certificate: dns}]", '{mqtt: "0.0.0.0:1883"}', False),
        ("[{name: cert, certificate: dns}, anonymous]", '{mqtt: "0.0.0.0:1883"}', True),
        ("[{name: cert, certificate: dns}, anonymous]", '{mqtt: "0.0.0.0:1883", identify: [cert]}', False),
    ],
)
def test_vehicles_without_a_proof_beyond_this_machine(providers: str, listen: str, open: bool) -> None:
    door = f"front_doors: [{{name: door, listen: [{listen}]}}]\n"
    found = warned(f"mesh: demo\n{door}{CORE}{POOL}identity: {{providers: {providers}}}\n")
    said = [text for text in found if text.startswith("identity.providers: every client that reaches 0.0.0.0:1883")]
    assert len(said) == open


@pytest.mark.parametrize(
    ("listen", "useless"),
    [
        ('{mqtt: "127.0.0.1:1883"}', True),
        ('{mqtt: "127.0.0.1:1883", proxy: [10.0.0.0/8]}', False),
        ('{mqtt: "127.0.0.1:1883", proxy: [10.0.0.0/8], identify: [anonymous]}', True),
    ],
)
def test_a_provider_of_certificates_to_which_none_is_shown(listen: str, useless: bool) -> None:
    door = f"front_doors: [{{name: door, listen: [{listen}]}}]\n"
    providers = "identity: {providers: [{name: cert, certificate: common_name}, anonymous]}\n"
    found = warned(f"mesh: demo\n{door}{CORE}{POOL}{providers}")
    said = [text for text in found if "no client shows a certificate to the provider 'cert'" in text]
    assert len(said) == useless


@pytest.mark.parametrize("name", ["client-certificates.yaml", "internet.yaml"])
def test_examples_for_vehicles_that_prove_who_they_are_have_no_warning(name: str, tmp_path: Path) -> None:
    assert warnings(load(prepared(example(name), tmp_path))) == []


def test_tokens_for_other_services() -> None:
    jwt = "keys: 'https://issuer.example/keys', issuer: i, algorithms: [ES256]"
    whole = "{}identity: {{providers: [{{name: t, jwt: {{{}}}}}]}}\n"
    assert warned(whole.format(SMALL, jwt + ", audience: mesh")) == []
    (text,) = warned(whole.format(SMALL, jwt))
    assert text.startswith("identity.providers.t.jwt: a token that the issuer made for another service")


def test_the_short_forms_are_one_provider(tmp_path: Path) -> None:
    (tmp_path / "v.scram").touch(0o600)

    def providers(keys: str) -> tuple[ProviderSpec, ...]:
        text = SMALL.replace("127.0.0.1:1883", "0.0.0.0:1883") + f"identity: {{{keys}}}\n"
        return loads(text.encode(), "t.yaml", tmp_path).identity.providers

    assert providers("from: tls_common_name") == (ProviderSpec(name="certificate", certificate="common_name"),)
    assert providers("scram: v.scram") == (ProviderSpec(name="scram", scram=tmp_path / "v.scram"),)


def test_back_ends_without_a_password_beyond_this_machine() -> None:
    (text,) = warned(f"mesh: demo\n{DOOR}{OPEN_CORE}{POOL}backends: {{anonymous: true}}\n")
    assert text.startswith("backends.anonymous: every client that reaches 0.0.0.0:1884 may command all vehicles")
    assert warned(f"mesh: demo\n{DOOR}{OPEN_CORE}{POOL}{USERS}") == []


def test_secrets_that_are_in_the_topology() -> None:
    written = "backends: {users: [{user: fleet, password: secret}, {user: depot, password: {env: DEPOT}}]}\n"
    (text,) = warned(f"mesh: demo\n{DOOR}{CORE}{POOL}{written}")
    assert text.startswith("backends.users.fleet.password: the value is in the topology")
    assert "depot" not in text
