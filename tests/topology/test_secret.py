"""Secrets of the topology: as a text, in a file, in the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.policy.secrettext import SecretText
from mesh.topology.load import exposure, load, loads
from mesh.topology.mistakes import TopologyErrors
from mesh.topology.topology import Topology, as_dict, from_dict
from tests.topology.small import SMALL


def read(tmp_path: Path, password: str) -> Topology:
    text = (
        f"{SMALL}backends: {{users: [{{user: app, password: {password}}}]}}\n"
        f"etcd: {{endpoints: ['https://e:2379'], auth: {{user: mesh, password: {password}}}}}\n"
    )
    return loads(text.encode(), "mesh.yaml", tmp_path)


@pytest.mark.parametrize("password", ["{file: app.secret}", "{env: APP_PASSWORD}", "plain"])
def test_a_topology_keeps_where_a_secret_is(tmp_path: Path, password: str) -> None:
    (tmp_path / "app.secret").touch(0o600)
    (tmp_path / "app.secret").write_text("hidden")
    expected = {
        "{file: app.secret}": SecretText(file=tmp_path / "app.secret"),
        "{env: APP_PASSWORD}": SecretText(env="APP_PASSWORD"),
        "plain": SecretText(text="plain"),
    }[password]
    topology = read(tmp_path, password)
    assert topology.backends.users[0].password == expected
    assert topology.etcd.auth is not None
    assert topology.etcd.auth.password == expected
    assert "hidden" not in repr(as_dict(topology))
    assert from_dict(as_dict(topology)) == topology


@pytest.mark.parametrize(
    ("password", "key", "says"),
    [
        ("[hidden]", "password", "expected a text, {file: PATH} or {env: NAME}, found a list"),
        ("{}", "password", "write either {file: PATH} or {env: NAME}"),
        ("{file: app.secret, env: X}", "password", "write either {file: PATH} or {env: NAME}"),
        ("{path: app.secret}", "password.path", "unknown key"),
        ("{env: a-b}", "password.env", "'a-b' is no name of an environment variable"),
        ("{file: absent}", "password.file", "absent cannot be read: No such file"),
        ("{file: open.secret}", "password.file", "run: chmod 600"),
    ],
)
def test_a_mistake_has_its_key_and_no_value(tmp_path: Path, password: str, key: str, says: str) -> None:
    (tmp_path / "open.secret").write_text("hidden")
    (tmp_path / "open.secret").chmod(0o644)
    (tmp_path / "app.secret").touch(0o600)
    with pytest.raises(TopologyErrors) as errors:
        read(tmp_path, password)
    assert f"backends.users[0].{key}: " in str(errors.value)
    assert f"etcd.auth.{key}: " in str(errors.value)
    assert says in str(errors.value)
    assert "hidden" not in str(errors.value)


def test_a_topology_with_references_may_be_read_by_all(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(f"{SMALL}backends: {{users: [{{user: app, password: {{env: APP}}}}]}}\n")
    file.chmod(0o644)
    assert exposure(file, load(file)) == ""
