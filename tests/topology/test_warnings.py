"""What is allowed and dangerous is named, with what would prevent it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.topology.load import loads
from mesh.topology.warnings import warnings
from tests.topology.small import DOOR, POOL, SMALL

OPEN_CORE = 'cores: [{name: core, listen: [{mqtt: "0.0.0.0:1884"}]}]\n'
USERS = "backends: {users: [{user: fleet, password: secret}]}\n"


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


def test_back_ends_without_a_password_beyond_this_machine() -> None:
    (text,) = warned(f"mesh: demo\n{DOOR}{OPEN_CORE}{POOL}backends: {{anonymous: true}}\n")
    assert text.startswith("backends.anonymous: every client that reaches 0.0.0.0:1884 may command all vehicles")
    assert warned(f"mesh: demo\n{DOOR}{OPEN_CORE}{POOL}{USERS}") == []
